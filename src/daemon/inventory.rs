//! Inventory files: reads those named in the configuration or on the command line, and stores the one written by `inventory import`.
//!
//! The imported inventory is a file in a separate directory below the state directory, so that a running daemon notices when it is
//! replaced.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::{Context as _, bail};

use crate::detection::inventory::{self, MAX_INPUT, Origin, Settings};
use crate::detection::registry::Inventory;

/// Path of the imported inventory, relative to the state directory.
const IMPORTED: &str = "inventory/inventory.json";

/// Returns the path of the imported inventory in a state directory.
pub(crate) fn imported_path(state_dir: &Path) -> PathBuf {
    state_dir.join(IMPORTED)
}

/// Reads inventory files in this order: later ones override earlier ones.
///
/// # Errors
///
/// If a file cannot be read, or is not an inventory. The error contains the file name and the line.
pub(crate) fn load(paths: &[PathBuf]) -> anyhow::Result<Arc<Inventory>> {
    let mut inventory = Inventory::default();
    for path in paths {
        read_file(path, &mut inventory)?;
    }
    Ok(Arc::new(inventory))
}

/// Reads inventory files and the imported inventory of a state directory, if there is one.
pub(crate) fn load_with_imported(paths: &[PathBuf], state_dir: &Path) -> anyhow::Result<Arc<Inventory>> {
    let mut inventory = load_imported(state_dir)?;
    for path in paths {
        read_file(path, &mut inventory)?;
    }
    Ok(Arc::new(inventory))
}

/// Reads the imported inventory of a state directory; it is empty if there is none.
pub(crate) fn load_imported(state_dir: &Path) -> anyhow::Result<Inventory> {
    let mut inventory = Inventory::default();
    let path = imported_path(state_dir);
    if path.exists() {
        read_file(&path, &mut inventory)?;
    }
    Ok(inventory)
}

fn read_file(path: &Path, inventory: &mut Inventory) -> anyhow::Result<()> {
    let name = path.display().to_string();
    let file = fs::File::open(path).with_context(|| format!("cannot read the inventory {name}"))?;
    let metadata = file.metadata().with_context(|| format!("cannot read the inventory {name}"))?;
    if metadata.is_dir() {
        bail!("the inventory {name} is a directory: expected a file");
    }
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let time = modified.and_then(|time| i64::try_from(time.as_nanos()).ok()).unwrap_or_default();
    let bytes = read_bounded(file).with_context(|| format!("cannot read the inventory {name}"))?;
    let origin = Origin { source: name.clone(), time };
    let settings = Settings { origin, namespace: None, asserts_credentials: false };
    inventory::read(&bytes, &settings, inventory)
        .with_context(|| format!("cannot read the inventory {name}"))?;
    Ok(())
}

/// Reads all of an input, up to a limit.
pub(crate) fn read_bounded(input: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(MAX_INPUT as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_INPUT {
        return Err(io::Error::other(format!(
            "larger than {MAX_INPUT} bytes, the limit: import it in parts"
        )));
    }
    Ok(bytes)
}

/// Replaces the imported inventory of a state directory.
///
/// # Errors
///
/// If it cannot be written; the previous one is then unchanged.
pub(crate) fn store(state_dir: &Path, inventory: &Inventory) -> anyhow::Result<PathBuf> {
    let path = imported_path(state_dir);
    let write = || -> io::Result<()> {
        let directory = path.parent().unwrap_or(state_dir);
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // Renamed when complete, so that a running daemon never reads a part of it.
        let temporary = path.with_extension("json.new");
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(inventory::export(inventory).as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
