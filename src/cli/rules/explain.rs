//! `pullwatch rules explain`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use anstyle::{AnsiColor, Style};
use anyhow::bail;
use clap::Args;

use super::super::{rule_files, visible};
use super::events;
use crate::detection::audit::event::{Event, Member};
use crate::detection::engine::alert_context::AlertContext;
use crate::detection::engine::explain::{ExplainContext, Explanation, Part, explain};
use crate::detection::engine::extract::InputContext;
use crate::detection::registry::{self, ClusterState};
use crate::detection::rules::Matching;
use crate::detection::rules::ast::Feed;

/// Show why a rule fires on an event, or does not
///
/// Prints the rule's condition as a tree: each comparison with the value it left and what came of it. Secrets in the
/// event are hidden. Events before it in the same file teach which secrets are registry credentials, as in a scan.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch rules explain --rule 'Secrets Listed' event.json
  pullwatch rules explain --rule 'Secrets Listed' audit.log --audit-id 7a4bfe09-25a2-4a09-bb66-b44b7aa7b6a4
  grep 7a4bfe09 audit.log | pullwatch rules explain --rule 'Secrets Listed' -
  pullwatch rules explain --rules mine.yaml --rule Mine event.json --failing

Exit status: 0 the rule fires, 1 it does not, 2 an error.")]
pub struct Explain {
    /// The rule's name.
    #[arg(long, value_name = "NAME")]
    rule: String,

    /// A file with the event, - for standard input, or the event's JSON itself. Of several the first counts.
    event: String,

    /// Of several events the first one with this audit id, and each further stage of it.
    #[arg(long, value_name = "ID")]
    audit_id: Option<String>,

    /// Show only what decides: under a part that fails only what fails, under one that holds only what holds.
    #[arg(long)]
    failing: bool,

    /// A rule file, or a directory of them. May be given several times.
    #[arg(short, long = "rules", value_name = "PATH")]
    rules: Vec<PathBuf>,
}

/// A value is shown up to so many characters.
const WIDEST: usize = 160;

impl Explain {
    /// Explains.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = rule_files::load(&self.rules, Matching::All)?;
        let Some(rule) = loaded.rules.rules.iter().find(|rule| *rule.name == *self.rule) else {
            if let Some(correlation) = loaded.rules.correlations.iter().find(|one| *one.name == *self.rule) {
                let feeds = correlation.feeds.iter().map(|feed| match *feed {
                    Feed::Rule(index) => &loaded.rules.rules[index].name,
                    Feed::Correlation(index) => &loaded.rules.correlations[index].name,
                });
                let feeds: Vec<String> = feeds.map(|name| format!("  {}", visible(name))).collect();
                bail!(
                    "«{}» is a correlation: it looks at no event, but at alerts of:\n{}",
                    visible(&self.rule),
                    feeds.join("\n")
                );
            }
            let names: Vec<String> =
                loaded.rules.rules.iter().map(|rule| format!("  {}", visible(&rule.name))).collect();
            bail!("there is no rule «{}»; there are:\n{}", visible(&self.rule), names.join("\n"));
        };
        let bytes = events::read(&self.event)?;
        let mut found = events::split(&bytes);
        if self.audit_id.is_none() {
            found.truncate(1);
        }
        let mut fires = None;
        let mut cluster_state = ClusterState::default();
        let names = &loaded.rules.credential_names;
        let mut out = anstream::stdout().lock();
        for text in found {
            let mut event = Event::new(text);
            let is_meant = self
                .audit_id
                .as_ref()
                .is_none_or(|id| event.text(Member::AuditId).is_some_and(|own| *own == *id.as_bytes()));
            if !is_meant {
                // What stands before an event teaches what it is judged by, as in a scan.
                registry::learn(&mut event, names, &mut cluster_state);
                continue;
            }
            let input = InputContext { position: 1, hostname: "" };
            let background = ExplainContext { names, cluster_state: &cluster_state, input };
            let explanation = explain(&rule.condition, &mut event, background);
            let incident = AlertContext::new(&mut event, Rc::default());
            let text = |raw: Option<std::borrow::Cow<'_, [u8]>>| {
                visible(&String::from_utf8_lossy(&raw.unwrap_or_default()))
            };
            writeln!(
                out,
                "{} {} by {} ({})",
                text(event.text(Member::Verb)),
                visible(incident.target()),
                visible(incident.actor()),
                text(event.text(Member::Stage))
            )?;
            let name = visible(&rule.name);
            match (explanation.holds, rule.enabled) {
                (true, true) => writeln!(out, "«{name}» fires:")?,
                (true, false) => writeln!(out, "«{name}» would fire, but is not enabled:")?,
                (false, _) => writeln!(out, "«{name}» does not fire:")?,
            }
            self.show(&explanation, "", "", &mut out)?;
            fires = Some(fires == Some(true) || explanation.holds && rule.enabled);
            registry::learn(&mut event, names, &mut cluster_state);
        }
        match (fires, &self.audit_id) {
            (Some(fires), _) => Ok(ExitCode::from(u8::from(!fires))),
            (None, Some(id)) => {
                bail!("no event in {} has the audit id {}", visible(&self.event), visible(id))
            }
            (None, None) => bail!("no event in {}", visible(&self.event)),
        }
    }

    /// Prints a part and what is under it. Recursion is bounded by the loader.
    fn show(
        &self,
        part: &Explanation,
        lead: &str,
        indent: &str,
        out: &mut impl std::io::Write,
    ) -> std::io::Result<()> {
        let (mark, style) = if part.holds {
            ("✓", AnsiColor::Green.on_default())
        } else {
            ("✗", AnsiColor::Red.on_default())
        };
        let dim = Style::new().dimmed();
        write!(out, "{lead}{style}{mark}{style:#} ")?;
        let children: &[Explanation] = match &part.part {
            Part::And(parts) => {
                writeln!(out, "and")?;
                parts
            }
            Part::Or(parts) => {
                writeln!(out, "or")?;
                parts
            }
            Part::Not(inner) => {
                writeln!(out, "not")?;
                std::slice::from_ref(&**inner)
            }
            Part::Macro(name, body) => {
                writeln!(out, "{}", visible(name))?;
                std::slice::from_ref(&**body)
            }
            Part::Exception(name, body) => {
                writeln!(out, "exception {}", visible(name))?;
                std::slice::from_ref(&**body)
            }
            Part::Check { comparison, left, right } => {
                let left = left
                    .as_deref()
                    .map_or("nothing there".to_owned(), |left| format!("left {}", short(left)));
                write!(out, "{}  {dim}{left}{dim:#}", short(comparison))?;
                if let Some(right) = right {
                    write!(out, "{dim} and {}{dim:#}", short(right))?;
                }
                writeln!(out)?;
                &[]
            }
        };
        let children: Vec<_> = children
            .iter()
            .filter(|child| !self.failing || matches!(part.part, Part::Not(_)) || child.holds == part.holds)
            .collect();
        for (at, child) in children.iter().enumerate() {
            let is_last = at + 1 == children.len();
            let (branch, more) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            self.show(child, &format!("{indent}{branch}"), &format!("{indent}{more}"), out)?;
        }
        Ok(())
    }
}

fn short(text: &str) -> String {
    let text = visible(text);
    match text.char_indices().nth(WIDEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
