//! Finds, reads and loads rule files for the commands.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::detection::rules::{self, Loaded, Matching, Severity, SourceFile};
use crate::shipped;

/// Directory that is used if it exists and no rules are named.
const DEFAULT: &str = "rules.d";

/// Maximum size of a rule file, in bytes. Rules are written by hand; a larger file must be something else.
const MAX_FILE_SIZE: u64 = 16 * 1024 * 1024;

/// Represents the built-in rules among the paths of rule files.
const BUILT_IN: &str = "builtin";

/// Reads the named rule files, the built-in rules for `builtin`, and the `*.yaml` and `*.yml` files of named directories in name order. If none are named, reads those of
/// `./rules.d` or, if there is no such directory, the built-in rules.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<SourceFile>> {
    if paths.is_empty() {
        let default = Path::new(DEFAULT);
        if !default.is_dir() {
            return Ok(shipped::files());
        }
        return read(&[default.to_owned()]);
    }
    let mut files = Vec::new();
    for path in paths {
        if path == Path::new(BUILT_IN) {
            files.extend(shipped::files());
            continue;
        }
        let metadata =
            std::fs::metadata(path).with_context(|| format!("cannot read rules from {}", path.display()))?;
        if !metadata.is_dir() {
            files.push(read_file(path)?);
            continue;
        }
        let mut found = Vec::new();
        let entries = std::fs::read_dir(path)
            .with_context(|| format!("cannot read the directory {}", path.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read the directory {}", path.display()))?.path();
            let is_rules =
                path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
            let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if is_rules && !is_hidden && path.is_file() {
                found.push(path);
            }
        }
        if found.is_empty() {
            bail!("no rule files in directory {}: expected *.yaml or *.yml", path.display());
        }
        found.sort();
        for path in found {
            files.push(read_file(&path)?);
        }
    }
    Ok(files)
}

fn read_file(path: &Path) -> anyhow::Result<SourceFile> {
    let name = path.display().to_string();
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {name}"))?.len();
    if size > MAX_FILE_SIZE {
        bail!("rule file {name} is too large: {size} bytes, limit {MAX_FILE_SIZE}");
    }
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        anyhow::anyhow!(
            "{name} is not valid UTF-8 (byte {}): save it as UTF-8",
            error.utf8_error().valid_up_to()
        )
    })?;
    Ok(SourceFile { name: name.into(), text })
}

/// Reads and loads rules. Prints errors and fails if there are any; prints the number of warnings.
pub fn load(paths: &[PathBuf], matching: Matching) -> anyhow::Result<Loaded> {
    load_files(&read(paths)?, matching)
}

/// Loads rules from files already read, like [`load`].
pub fn load_files(files: &[SourceFile], matching: Matching) -> anyhow::Result<Loaded> {
    let loaded = rules::load(files, &rules::Options { matching });
    tracing::debug!(files = files.len(), rules = loaded.rules.rules.len(), "loaded rules");
    let errors = loaded.count(Severity::Error);
    if errors > 0 {
        let wrong: Vec<_> = loaded
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .cloned()
            .collect();
        show(&rules::render(&wrong, files, true));
        bail!(
            "failed to load rules: {}; rules that extend the shipped ones need `--rules builtin` before them",
            plural(errors, "error")
        );
    }
    let warnings = loaded.count(Severity::Warning);
    if warnings > 0 && std::io::stderr().is_terminal() {
        let _ = writeln!(
            std::io::stderr(),
            "{} in the rules: run `pullwatch rules check` for details",
            plural(warnings, "warning")
        );
    }
    Ok(loaded)
}

/// Fails if no rule is left to evaluate.
pub fn ensure_not_empty(loaded: &Loaded) -> anyhow::Result<()> {
    match loaded.why_empty() {
        Some(reason) => bail!("no rule to evaluate: {reason}; see `pullwatch rules check`"),
        None => Ok(()),
    }
}

/// Prints to standard error, in color if it is a terminal.
pub fn show(text: &str) {
    // There is no other place to report a failure.
    let _ = write!(anstream::stderr(), "{text}");
}

/// `1 error`, `2 errors`.
pub fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
