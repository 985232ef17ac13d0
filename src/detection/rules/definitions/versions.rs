//! Versions that a rule file requires: of the language, and of plugins whose fields it uses.

use super::{DefinitionReader, Parsed};
use crate::text::yaml::Node;

impl DefinitionReader<'_, '_> {
    pub(super) fn engine_version(&mut self, item: &Node) -> Parsed<()> {
        let whole = self.span(item);
        let node = self.required(item, "required_engine_version", "item", &whole)?;
        let span = self.span(node);
        let text = node.text().unwrap_or_default();
        let wanted = match text.parse::<u64>() {
            Ok(minor) => Some((0, minor, 0)),
            Err(_) => version(text),
        };
        match wanted {
            None => self.fail(
                "version",
                format!("`{text}` is not a version"),
                span,
                "expected 0.31.0, or a number",
            ),
            Some(wanted) if wanted > ENGINE => {
                let (major, minor, patch) = ENGINE;
                let label = format!("pullwatch supports {major}.{minor}.{patch}");
                self.fail("version", format!("these rules need engine version {text}"), span, &label)
            }
            Some(_) => Ok(()),
        }
    }

    pub(super) fn plugin_versions(&mut self, item: &Node) -> Parsed<()> {
        let whole = self.span(item);
        let Some(requirements) = item.get("required_plugin_versions").and_then(|node| node.sequence()) else {
            return self.fail(
                "version",
                "`required_plugin_versions` takes a sequence",
                whole,
                "expected `- name: …`",
            );
        };
        for requirement in requirements {
            let mut choices = vec![requirement];
            choices
                .extend(requirement.get("alternatives").and_then(|node| node.sequence()).unwrap_or_default());
            let mut satisfied = false;
            for choice in choices {
                let span = self.span(choice);
                let name = self.required(choice, "name", "requirement", &span)?.text().unwrap_or_default();
                let node = self.required(choice, "version", "requirement", &span)?;
                let text = node.text().unwrap_or_default();
                let Some(wanted) = version(text) else {
                    let span = self.span(node);
                    return self.fail(
                        "version",
                        format!("`{text}` is not a version"),
                        span,
                        "expected 0.18.0",
                    );
                };
                satisfied |= VARIANTS.contains(&name)
                    || PLUGINS
                        .iter()
                        .any(|(known, has)| *known == name && has.0 == wanted.0 && *has >= wanted);
            }
            if !satisfied {
                let span = self.span(requirement);
                return self.fail(
                    "version",
                    "these rules require a plugin, or a version of one, that pullwatch does not replace",
                    span,
                    "pullwatch replaces k8saudit 0.18.0 and json 0.7.4",
                );
            }
        }
        Ok(())
    }
}

/// Version of the language: the engine version of Falco 0.44.
const ENGINE: (u64, u64, u64) = (0, 62, 0);

/// The plugins whose fields are supported, with their versions.
const PLUGINS: [(&str, (u64, u64, u64)); 2] = [("k8saudit", (0, 18, 0)), ("json", (0, 7, 4))];

/// Plugins that provide events of other origins for the same fields, or that only add fields to outputs. Any version is accepted.
const VARIANTS: [&str; 5] = ["k8saudit-eks", "k8saudit-gke", "k8saudit-aks", "k8saudit-ovh", "container"];

fn version(text: &str) -> Option<(u64, u64, u64)> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    let version = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(version)
}
