//! The findings of a policy check as tables.

use std::io::Write as _;

use super::findings::{Findings, Limits};
use super::wording;
use crate::cli::rule_files::plural;
use crate::cli::table;
use crate::cli::visible;
use crate::detection::policy::Verdict;
use crate::detection::policy::findings::{
    KUBECTL_CHUNK, LargestEvents, MAX_SECRET_BYTES, SMALL_SECRET_BYTES, Size,
};

/// Width of tables that do not go to a terminal.
const WIDTH: u16 = 120;

pub fn print(findings: &Findings) -> anyhow::Result<()> {
    rules(findings)?;
    tags(findings)?;
    hidden(findings)?;
    written(findings)?;
    sizes(findings)?;
    summary(findings)
}

fn title(text: &str) -> anyhow::Result<()> {
    let bold = anstyle::Style::new().bold();
    writeln!(anstream::stdout(), "\n{bold}{text}{bold:#}")?;
    Ok(())
}

fn new_table(head: &[&str]) -> comfy_table::Table {
    let mut table = table::table(head);
    if !table.is_tty() {
        table.set_width(WIDTH);
    }
    table
}

fn rules(findings: &Findings) -> anyhow::Result<()> {
    let mut table = new_table(&["RULE", "VERDICT", "REASON AND REMEDY"]);
    for coverage in &findings.coverage {
        let reasons: Vec<String> = wording::reasons(coverage).iter().map(|reason| visible(reason)).collect();
        table.add_row([visible(&coverage.rule), coverage.verdict.name().to_owned(), reasons.join("\n")]);
    }
    table::print(&table)
}

fn tags(findings: &Findings) -> anyhow::Result<()> {
    let lost: Vec<_> = findings.tags.iter().filter(|tag| !tag.blind.is_empty()).collect();
    if lost.is_empty() {
        return Ok(());
    }
    title("Techniques with blind rules")?;
    let mut table = new_table(&["TAG", "BLIND", "BLIND RULES"]);
    for tag in lost {
        let how = if tag.seeing.is_empty() { "completely" } else { "partly" };
        let blind: Vec<&str> = tag.blind.iter().map(|rule| &**rule).collect();
        table.add_row([visible(&tag.name), how.to_owned(), visible(&blind.join(", "))]);
    }
    table::print(&table)
}

fn hidden(findings: &Findings) -> anyhow::Result<()> {
    title("Attacker techniques that are not fully visible")?;
    if findings.hidden.is_empty() {
        writeln!(anstream::stdout(), "None of the techniques that pullwatch checks for.")?;
        return Ok(());
    }
    let mut table = new_table(&["TECHNIQUE", "TAG", "VISIBILITY", "CAUSE"]);
    for hidden in &findings.hidden {
        let requests = wording::requests(&hidden.requests);
        let because = match requests.as_str() {
            // The only technique without requests of its own.
            "" => format!("{} (logged at ResponseStarted only)", wording::decider(hidden.line)),
            requests => format!("{} ({requests})", wording::decider(hidden.line)),
        };
        table.add_row([hidden.name, hidden.tag, hidden.visibility.name(), &visible(&because)]);
    }
    table::print(&table)
}

fn written(findings: &Findings) -> anyhow::Result<()> {
    title("Credentials written to the audit log")?;
    if findings.written.is_empty() {
        writeln!(anstream::stdout(), "None.")?;
        return Ok(());
    }
    let mut table = new_table(&["LINE", "LEVEL", "LOGS", "REQUESTS"]);
    for written in &findings.written {
        let mut requests = wording::requests(&written.requests);
        if !written.only.is_empty() {
            requests = format!("{requests}, {}", written.only);
        }
        table.add_row([
            written.line.to_string(),
            written.level.name().to_owned(),
            written.payload.name().to_owned(),
            visible(&requests),
        ]);
    }
    table::print(&table)?;
    writeln!(
        anstream::stdout(),
        "Anyone who can read this log, or a copy of it, has these credentials. Tables and metadata contain them too, in the\nannotation kubectl.kubernetes.io/last-applied-configuration. Level Metadata is enough to detect each read."
    )?;
    Ok(())
}

fn sizes(findings: &Findings) -> anyhow::Result<()> {
    title("Maximum event size")?;
    let limits = findings.limits;
    let big: Vec<&LargestEvents> = findings.sizes.iter().filter(|big| big.size != Size::Head).collect();
    if big.is_empty() {
        writeln!(
            anstream::stdout(),
            "About 4 KB, since no objects are logged: below all limits of the apiserver."
        )?;
        return Ok(());
    }
    let mut table = new_table(&["LINE", "MAXIMUM SIZE", "REQUESTS"]);
    for big in &big {
        let holds = match big.size {
            Size::Unbounded => "any number of objects".to_owned(),
            size => format!("up to {}", size.max_bytes().map(wording::bytes).unwrap_or_default()),
        };
        table.add_row([big.line.to_string(), holds, visible(&wording::requests(&big.requests))]);
    }
    table::print(&table)?;
    let mut out = anstream::stdout().lock();
    let biggest = big.iter().map(|big| big.size).max().unwrap_or(Size::Head);
    let of_secrets = big.iter().any(|big| {
        big.size == Size::Unbounded && big.requests.iter().any(|request| request.resource == "secrets")
    });
    if of_secrets {
        writeln!(
            out,
            "A list of secrets can contain all secrets of the cluster: one page of kubectl ({} secrets) of 1 MiB each is {}.",
            KUBECTL_CHUNK,
            wording::bytes(KUBECTL_CHUNK * MAX_SECRET_BYTES)
        )?;
    }
    limit_lines(&mut out, limits, biggest, of_secrets)?;
    Ok(())
}

/// Explains what the apiserver does with events of this size.
fn limit_lines(
    out: &mut impl std::io::Write,
    limits: Limits,
    biggest: Size,
    of_secrets: bool,
) -> std::io::Result<()> {
    let Limits { largest, truncated } = limits;
    let is_over = |limit: u64| biggest.max_bytes().is_none_or(|most| most > limit);
    if is_over(largest) {
        write!(
            out,
            "--audit-log-maxsize {}: larger events are dropped, and the read leaves no trace",
            largest >> 20
        )?;
        if of_secrets {
            let (large, small) = (largest / MAX_SECRET_BYTES + 1, largest / SMALL_SECRET_BYTES + 1);
            write!(out, ". {large} secrets of 1 MiB or about {small} small ones exceed it")?;
        }
        writeln!(out, ".")?;
    } else {
        writeln!(out, "--audit-log-maxsize {}: sufficient.", largest >> 20)?;
    }
    if is_over(truncated) {
        writeln!(
            out,
            "--audit-log-truncate-enabled: events larger than {} lose their objects; user, verb and target remain.",
            wording::bytes(truncated)
        )?;
        writeln!(
            out,
            "Webhook batches contain up to 400 events; --audit-webhook-truncate-enabled keeps them below 10 MiB and removes the\nobjects from events larger than {}.",
            wording::bytes(truncated)
        )?;
    }
    Ok(())
}

fn summary(findings: &Findings) -> anyhow::Result<()> {
    let counts: Vec<String> = wording::by_verdict(&findings.coverage)
        .into_iter()
        .map(|(verdict, count)| match verdict {
            Verdict::Sees if count == 1 => "1 sees all it needs".to_owned(),
            Verdict::Sees => format!("{count} see all they need"),
            verdict => format!("{count} {}", verdict.name()),
        })
        .collect();
    writeln!(
        anstream::stdout(),
        "\n{} checked against the {} of {}: {}",
        plural(findings.coverage.len(), "rule"),
        plural(findings.policy_rules, "rule"),
        visible(&findings.name),
        counts.join(", ")
    )?;
    Ok(())
}
