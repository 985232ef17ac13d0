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
use crate::detection::audit::redact::RedactionKey;
use crate::detection::engine::alert_context::AlertContext;
use crate::detection::engine::explain::{ExplainContext, ExplainedNode, Explanation, explain};
use crate::detection::engine::extract::InputContext;
use crate::detection::registry::{self, ClusterState};
use crate::detection::rules::Matching;
use crate::detection::rules::ast::Feed;
use crate::detection::shorten::Limits;

/// Show why a rule matches an event or not
///
/// Prints the rule's condition as a tree: each comparison with the value of its field and the result. Secret values in the
/// event are redacted. As in a scan, preceding events in the same file determine which secrets are known to be registry
/// credentials.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch rules explain --rule 'Secrets Listed' event.json
  pullwatch rules explain --rule 'Secrets Listed' audit.log --audit-id 7a4bfe09-25a2-4a09-bb66-b44b7aa7b6a4
  grep 7a4bfe09 audit.log | pullwatch rules explain --rule 'Secrets Listed' -
  pullwatch rules explain --rules mine.yaml --rule Mine event.json --failing

Exit status: 0 the rule matches, 1 it does not, 2 error.")]
pub struct Explain {
    /// Name of the rule
    #[arg(long, value_name = "NAME")]
    rule: String,

    /// File with the event, - for standard input, or the JSON of the event; of several events the first is used
    event: String,

    /// Explain every event with this audit ID instead of the first event
    #[arg(long, value_name = "ID")]
    audit_id: Option<String>,

    /// Show only the parts that decide the result: below a failed part the failed ones, below a true part the true ones
    #[arg(long)]
    failing: bool,

    /// Rule file or directory of rule files; repeatable
    #[arg(short, long = "rules", value_name = "PATH")]
    rules: Vec<PathBuf>,
}

/// Values are truncated to this number of characters.
const MAX_VALUE_WIDTH: usize = 160;

impl Explain {
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
                    "`{}` is a correlation and evaluates no events, but matches of these rules:\n{}",
                    visible(&self.rule),
                    feeds.join("\n")
                );
            }
            let names: Vec<String> =
                loaded.rules.rules.iter().map(|rule| format!("  {}", visible(&rule.name))).collect();
            bail!("no rule named `{}`. Available rules:\n{}", visible(&self.rule), names.join("\n"));
        };
        let bytes = events::read(&self.event)?;
        let mut found = events::split(&bytes);
        if self.audit_id.is_none() {
            found.truncate(1);
        }
        let mut matches = None;
        let mut cluster_state = ClusterState::default();
        let names = &loaded.rules.credential_names;
        let mut out = anstream::stdout().lock();
        for text in found {
            let mut event = Event::new(text);
            let is_selected = self
                .audit_id
                .as_ref()
                .is_none_or(|id| event.text(Member::AuditId).is_some_and(|own| *own == *id.as_bytes()));
            if !is_selected {
                // Preceding events update the cluster state, as in a scan.
                registry::learn(&mut event, names, &mut cluster_state);
                continue;
            }
            let input = InputContext { position: 1, ..InputContext::default() };
            let background = ExplainContext { names, cluster_state: &cluster_state, input };
            let explanation = explain(&rule.condition, &mut event, background);
            let incident =
                AlertContext::new(&mut event, Rc::default(), &RedactionKey::default(), Limits::default());
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
                (true, true) => writeln!(out, "`{name}` matches:")?,
                (true, false) => writeln!(out, "`{name}` would match, but is disabled:")?,
                (false, _) => writeln!(out, "`{name}` does not match:")?,
            }
            self.show(&explanation, "", "", &mut out)?;
            matches = Some(matches == Some(true) || explanation.holds && rule.enabled);
            registry::learn(&mut event, names, &mut cluster_state);
        }
        match (matches, &self.audit_id) {
            (Some(matches), _) => Ok(ExitCode::from(u8::from(!matches))),
            (None, Some(id)) => {
                bail!("no event with audit ID {} in {}", visible(id), visible(&self.event))
            }
            (None, None) => bail!("no event in {}", visible(&self.event)),
        }
    }

    /// Prints a part and its children. The recursion is bounded, since the loader limits the depth of conditions.
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
            ExplainedNode::And(parts) => {
                writeln!(out, "and")?;
                parts
            }
            ExplainedNode::Or(parts) => {
                writeln!(out, "or")?;
                parts
            }
            ExplainedNode::Not(inner) => {
                writeln!(out, "not")?;
                std::slice::from_ref(&**inner)
            }
            ExplainedNode::Macro(name, body) => {
                writeln!(out, "{}", visible(name))?;
                std::slice::from_ref(&**body)
            }
            ExplainedNode::Exception(name, body) => {
                writeln!(out, "exception {}", visible(name))?;
                std::slice::from_ref(&**body)
            }
            ExplainedNode::Comparison { comparison, left, right } => {
                let value =
                    left.as_deref().map_or("absent".to_owned(), |value| format!("is {}", short(value)));
                write!(out, "{}  {dim}{value}{dim:#}", short(comparison))?;
                if let Some(right) = right {
                    write!(out, "{dim}, compared with {}{dim:#}", short(right))?;
                }
                writeln!(out)?;
                &[]
            }
        };
        let children: Vec<_> = children
            .iter()
            .filter(|child| {
                !self.failing || matches!(part.part, ExplainedNode::Not(_)) || child.holds == part.holds
            })
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
    match text.char_indices().nth(MAX_VALUE_WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
