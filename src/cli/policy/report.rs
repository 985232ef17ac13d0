//! Findings as people read them.

use std::io::Write as _;

use super::check::{Findings, Limits};
use super::wording;
use crate::cli::rule_files::plural;
use crate::cli::table;
use crate::cli::visible;
use crate::detection::policy::Verdict;
use crate::detection::policy::findings::{
    KUBECTL_CHUNK, LargestEvents, MAX_SECRET_BYTES, SMALL_SECRET_BYTES, Size,
};

/// Where no terminal says how wide it is.
const WIDTH: u16 = 120;

/// Prints everything to standard output.
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
    let mut table = new_table(&["RULE", "VERDICT", "WHY, AND WHAT TO CHANGE"]);
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
    title("Techniques of the rules that stay invisible")?;
    let mut table = new_table(&["TAG", "INVISIBLE", "BLIND RULES"]);
    for tag in lost {
        let how = if tag.seeing.is_empty() { "wholly" } else { "in part" };
        let blind: Vec<&str> = tag.blind.iter().map(|rule| &**rule).collect();
        table.add_row([visible(&tag.tag), how.to_owned(), visible(&blind.join(", "))]);
    }
    table::print(&table)
}

fn hidden(findings: &Findings) -> anyhow::Result<()> {
    title("What an attacker can do unseen")?;
    if findings.hidden.is_empty() {
        writeln!(anstream::stdout(), "Nothing of what pullwatch knows to look for.")?;
        return Ok(());
    }
    let mut table = new_table(&["TECHNIQUE", "TAG", "IS", "BECAUSE OF"]);
    for hidden in &findings.hidden {
        let requests = wording::requests(&hidden.requests);
        let because = match requests.as_str() {
            // The only one that is of no kind of request.
            "" => format!("{} (they are logged at ResponseStarted only)", wording::decider(hidden.line)),
            requests => format!("{} ({requests})", wording::decider(hidden.line)),
        };
        table.add_row([hidden.name, hidden.tag, hidden.visibility.name(), &visible(&because)]);
    }
    table::print(&table)
}

fn written(findings: &Findings) -> anyhow::Result<()> {
    title("Credentials that the policy writes to disk")?;
    if findings.written.is_empty() {
        writeln!(anstream::stdout(), "None.")?;
        return Ok(());
    }
    let mut table = new_table(&["LINE", "LEVEL", "WRITES", "AT"]);
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
        "Whoever reads this log, or a copy of it, has them. Tables and metadata carry them too, in the annotation\nkubectl.kubernetes.io/last-applied-configuration. Level Metadata is enough to know of each read."
    )?;
    Ok(())
}

fn sizes(findings: &Findings) -> anyhow::Result<()> {
    title("How big an event can be")?;
    let limits = findings.limits;
    let big: Vec<&LargestEvents> = findings.sizes.iter().filter(|big| big.size != Size::Head).collect();
    if big.is_empty() {
        writeln!(
            anstream::stdout(),
            "About 4 KB, as no object is logged: no limit of the apiserver's touches it."
        )?;
        return Ok(());
    }
    let mut table = new_table(&["LINE", "AN EVENT HOLDS", "AT"]);
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
            "A list of secrets can hold all of them: {} of 1 MiB, which kubectl fetches at once, make {}.",
            KUBECTL_CHUNK,
            wording::bytes(KUBECTL_CHUNK * MAX_SECRET_BYTES)
        )?;
    }
    limit_lines(&mut out, limits, biggest, of_secrets)?;
    Ok(())
}

/// What the apiserver does with events of that size.
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
            "--audit-log-maxsize {}: a larger event is dropped, and the read leaves no line",
            largest >> 20
        )?;
        if of_secrets {
            let (large, small) = (largest / MAX_SECRET_BYTES + 1, largest / SMALL_SECRET_BYTES + 1);
            write!(out, ". It takes {large} secrets of 1 MiB, or some {small} small ones")?;
        }
        writeln!(out, ".")?;
    } else {
        writeln!(out, "--audit-log-maxsize {}: large enough.", largest >> 20)?;
    }
    if is_over(truncated) {
        writeln!(
            out,
            "--audit-log-truncate-enabled: what is larger than {} loses its objects; who, what and where stay.",
            wording::bytes(truncated)
        )?;
        writeln!(
            out,
            "To a webhook go batches of up to 400 events; --audit-webhook-truncate-enabled keeps them below 10 MiB, and takes\nthe objects out of what is larger than {}.",
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
        "\n{} under the {} of {}: {}",
        plural(findings.coverage.len(), "rule"),
        plural(findings.policy_rules, "rule"),
        visible(&findings.name),
        counts.join(", ")
    )?;
    Ok(())
}
