//! `pullwatch inventory`: declares the registry credentials of a cluster, instead of waiting until they are learned.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use super::rule_files::{plural, show};
use super::table::{print, table};
use super::visible;
use crate::daemon::inventory as files;
use crate::daemon::store;
use crate::daemon::time::unix_nanos;
use crate::detection::audit::time;
use crate::detection::inventory::{self, Origin, Settings};
use crate::detection::registry::Inventory;

/// Declare registry credentials, roles and nodes that exist before the log begins
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  kubectl get secrets -A | pullwatch inventory import
                                               names and types of all secrets
  kubectl get clusterroles,roles,clusterrolebindings,rolebindings -A -o json | pullwatch inventory import
                                               which roles read secrets
  kubectl get pods,serviceaccounts -A -o json | pullwatch inventory import
                                               which secrets pods mount and pull images with
  kubectl get nodes -o json | pullwatch inventory import
                                               which addresses nodes have
  helm template ./chart | pullwatch inventory import --namespace shop
                                               manifests before they are applied
  pullwatch inventory list                     the declared registry credentials
  pullwatch inventory export > inventory.json  for Git, or for `pullwatch scan --inventory`

The data of secrets is never kept.")]
pub enum Inventories {
    Import(Import),
    List(List),
    Export(Export),
}

/// Add to the inventory of `run`
///
/// Takes tables of kubectl (also -o wide, -o custom-columns, -o name), JSON and YAML of secrets, pods, service accounts,
/// workloads, roles, bindings and nodes, manifests, and the output of Helm. Keeps names, types, references, registry hosts, user
/// names and addresses of nodes, never data. A running daemon takes the inventory over within seconds.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl get secrets -A | pullwatch inventory import
  pullwatch inventory import secrets.txt roles.json
  kubectl get secrets -n shop -o name | pullwatch inventory import --namespace shop --credentials
                                               a list of registry credentials without their types
  pullwatch inventory import --replace cluster.json
                                               instead of what was imported before

Exit status: 0 success, 2 error; then the inventory is unchanged.")]
pub struct Import {
    /// Files to read, or - for standard input
    #[arg(value_name = "FILE|-")]
    paths: Vec<PathBuf>,

    /// Namespace of objects that do not name one [default: unknown, their names count in every namespace]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Treat secrets whose type the input does not show as registry credentials
    #[arg(long)]
    credentials: bool,

    /// Replace the inventory instead of adding to it
    #[arg(long)]
    replace: bool,

    #[command(flatten)]
    state_dir: StateDir,
}

/// List the registry credentials and nodes of the inventory
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch inventory list
  pullwatch inventory list --all
  pullwatch inventory list --inventory secrets.txt

Exit status: 0 success, 2 error.")]
pub struct List {
    /// Include secrets that are not registry credentials
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    from: InventoryArgs,
}

/// Write the inventory as JSON
///
/// The output can be imported again, and be used with `--inventory` and `inventory:` in the configuration.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pullwatch inventory export > inventory.json
  pullwatch inventory export --inventory secrets.txt --output inventory.json

Exit status: 0 success, 2 error.")]
pub struct Export {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    #[command(flatten)]
    from: InventoryArgs,
}

/// Selects the inventory to show.
#[derive(Debug, Args)]
struct InventoryArgs {
    /// Inventory file to read instead of the imported inventory; repeatable
    #[arg(long, value_name = "PATH")]
    inventory: Vec<PathBuf>,

    #[command(flatten)]
    state_dir: StateDir,
}

#[derive(Debug, Args)]
struct StateDir {
    /// State directory of `run` [default: $PULLWATCH_STATE_DIR, else /var/lib/pullwatch for root, else
    /// ~/.local/state/pullwatch]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl StateDir {
    fn path(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(store::default_dir)
    }
}

impl InventoryArgs {
    fn load(&self) -> anyhow::Result<Inventory> {
        if self.inventory.is_empty() {
            files::load_imported(&self.state_dir.path())
        } else {
            Ok(std::sync::Arc::unwrap_or_clone(files::load(&self.inventory)?))
        }
    }
}

impl Inventories {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Inventories::Import(import) => import.run(),
            Inventories::List(list) => list.run(),
            Inventories::Export(export) => export.run(),
        }
    }
}

impl Import {
    fn run(self) -> anyhow::Result<ExitCode> {
        let dir = self.state_dir.path();
        let mut all = if self.replace { Inventory::default() } else { files::load_imported(&dir)? };
        let mut total = inventory::Summary::default();
        let stdin = [PathBuf::from("-")];
        let paths = if self.paths.is_empty() { &stdin[..] } else { &self.paths[..] };
        let before = all.credentials().count();
        for path in paths {
            let (name, bytes) = read(path)?;
            let settings = Settings {
                origin: Origin { source: name.clone(), time: unix_nanos() },
                namespace: self.namespace.clone(),
                asserts_credentials: self.credentials,
            };
            let summary = inventory::read(&bytes, &settings, &mut all)
                .with_context(|| format!("cannot import {name}"))?;
            total.objects += summary.objects;
            total.ignored += summary.ignored;
            total.untyped += summary.untyped;
        }
        all.remove_unused_origins();
        let path = files::store(&dir, &all)?;
        let credentials = all.credentials().count();
        let nodes = match all.nodes().count() {
            0 => String::new(),
            count => format!(", {}", plural(count, "node")),
        };
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "{} read, {} ignored: {} ({} new){nodes} in {}",
            plural(usize::try_from(total.objects).unwrap_or(usize::MAX), "object"),
            total.ignored,
            plural(credentials, "registry credential"),
            credentials.saturating_sub(before),
            path.display()
        )?;
        if total.untyped > 0 {
            show(&format!(
                "pullwatch: {} secrets without a type are not counted as registry credentials: import a list that shows the type, \
                 or use --credentials if all of them are\n",
                total.untyped
            ));
        }
        if self.namespace.is_none() && all.credentials().any(|(key, _)| key.starts_with("*/")) {
            show(
                "pullwatch: some credentials have no namespace and are recognized by name in every namespace: use -A, or \
                 --namespace\n",
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The name and the content of an input.
fn read(path: &std::path::Path) -> anyhow::Result<(String, Vec<u8>)> {
    if path.as_os_str() == "-" {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            bail!("no input: name a file, or pipe the output of `kubectl get secrets -A` to standard input");
        }
        let bytes = files::read_bounded(stdin.lock()).context("cannot read standard input")?;
        return Ok(("standard input".to_owned(), bytes));
    }
    let name = path.display().to_string();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {name}"))?;
    let bytes = files::read_bounded(file).with_context(|| format!("cannot read {name}"))?;
    Ok((name, bytes))
}

impl List {
    fn run(self) -> anyhow::Result<ExitCode> {
        let inventory = self.from.load()?;
        let now = unix_nanos();
        let mut rows = table(&["NAMESPACE", "NAME", "TYPE", "WHY", "REGISTRIES", "AGE", "SOURCE"]);
        for (key, secret) in inventory.secrets() {
            if secret.is_credential() != Some(true) && !self.all {
                continue;
            }
            let (namespace, name) = key.split_once('/').unwrap_or_default();
            let origin = inventory.origin(secret.origin);
            let why = match secret.is_credential() {
                Some(true) if secret.is_asserted => "declared",
                Some(true) if secret.has_content => "content",
                Some(true) if secret.secret_type.is_some() => "type",
                Some(true) => "reference",
                _ => "-",
            };
            rows.add_row([
                visible(namespace),
                visible(name),
                secret.secret_type.as_deref().map_or_else(|| "-".to_owned(), visible),
                why.to_owned(),
                visible(&secret.hosts.join(",")),
                origin.map_or_else(|| "-".to_owned(), |origin| age(now, origin.time)),
                origin.map_or_else(|| "-".to_owned(), |origin| visible(&origin.source)),
            ]);
        }
        if rows.row_count() > 0 {
            print(&rows)?;
        }
        let mut nodes = table(&["NODE", "ADDRESSES", "AGE", "SOURCE"]);
        for (name, node) in inventory.nodes() {
            let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
            let origin = inventory.node_origin(name);
            nodes.add_row([
                visible(name),
                addresses.join(","),
                origin.map_or_else(|| "-".to_owned(), |origin| age(now, origin.time)),
                origin.map_or_else(|| "-".to_owned(), |origin| visible(&origin.source)),
            ]);
        }
        if nodes.row_count() > 0 {
            print(&nodes)?;
        }
        show(&format!(
            "registry credentials: {}; pods with secrets: {}; roles and bindings: {}; nodes: {}\n",
            inventory.credentials().count(),
            inventory.pod_count(),
            inventory.role_count(),
            inventory.nodes().count(),
        ));
        Ok(ExitCode::SUCCESS)
    }
}

/// The age of an entry, in the format of kubectl.
fn age(now: i64, time: i64) -> String {
    let seconds = now.saturating_sub(time).max(0) / 1_000_000_000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        172_800..31_536_000 => format!("{}d", seconds / 86_400),
        _ => time::utc_seconds(time),
    }
}

impl Export {
    fn run(self) -> anyhow::Result<ExitCode> {
        let text = inventory::export(&self.from.load()?);
        match &self.output {
            Some(path) => {
                std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
            }
            None => {
                let mut out = std::io::stdout().lock();
                out.write_all(text.as_bytes())?;
                out.flush()?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
