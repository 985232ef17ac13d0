//! Tables that kubectl prints for people, and lists of names (`-o name`).
//!
//! Columns are separated by two or more spaces, and recognized by their headings; without known headings (`--no-headers`, `-o
//! custom-columns`) by the format of the cells.

use super::Error;
use crate::detection::registry::declared_objects::Builder;
use crate::detection::registry::inventory::{
    DeclaredNode, DeclaredSecret, InventoryFull, checked_type, is_name,
};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Namespace,
    Name,
    Type,
    /// Names of image pull secrets.
    PullSecrets,
    /// Addresses of a node.
    Addresses,
    Other,
}

impl Column {
    /// The content of a column by its heading.
    fn of(heading: &str) -> Self {
        let heading: String =
            heading.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect();
        match &*heading {
            "NAMESPACE" | "NS" | "METADATANAMESPACE" | "PROJECT" => Column::Namespace,
            "NAME" | "SECRET" | "SECRETNAME" | "METADATANAME" => Column::Name,
            "TYPE" | "SECRETTYPE" => Column::Type,
            "PULL" => Column::PullSecrets,
            "INTERNALIP" | "EXTERNALIP" => Column::Addresses,
            heading if heading.contains("PULLSECRET") => Column::PullSecrets,
            _ => Column::Other,
        }
    }
}

/// Headings of tables of other resources, which do not contain the required columns.
const OTHER_TABLES: [(&str, &str); 7] = [
    ("ROLES", "nodes"),
    ("READY", "pods or workloads"),
    ("STATUS", "pods or namespaces"),
    ("ROLE", "bindings"),
    ("CREATED AT", "roles"),
    ("SECRETS", "service accounts"),
    ("SCHEDULE", "cron jobs"),
];

pub(super) fn read(text: &str, builder: &mut Builder<'_>) -> Result<(), Error> {
    let mut columns: Option<Vec<Column>> = None;
    let mut has_entries = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        // Blank lines separate the tables of several resources.
        if line.trim_start().is_empty() {
            columns = None;
            continue;
        }
        if line.starts_with('#') || line.starts_with("No resources found") {
            has_entries |= line.starts_with("No resources");
            continue;
        }
        let cells = cells(line);
        let full = |full: InventoryFull| Error::full(number + 1, full);
        if cells.len() == 1 && columns.is_none() && cells[0].contains('/') {
            add_name(cells[0], builder).map_err(full)?;
            has_entries = true;
            continue;
        }
        if columns.is_none() {
            if let Some(found) = headings(&cells) {
                check_headings(&found, &cells, number + 1)?;
                columns = Some(found);
                continue;
            }
            columns = guess(&cells);
        }
        let Some(known) = &columns else {
            return Err(Error::new(number + 1, EXPECTED));
        };
        add_row(known, &cells, builder).map_err(|problem| match problem {
            Problem::InventoryFull(problem) => full(problem),
            Problem::Row(message) => Error::new(number + 1, message),
        })?;
        has_entries = true;
    }
    // A table with only headings is an empty one.
    if has_entries || columns.is_some() { Ok(()) } else { Err(Error::new(1, EXPECTED)) }
}

const EXPECTED: &str = "not recognized: expected a table of secrets (`kubectl get secrets -A`, or `-o custom-columns=\
                        NAMESPACE:.metadata.namespace,NAME:.metadata.name,TYPE:.type`), names (`-o name`), JSON or YAML";

/// The cells of a row. Columns are padded with at least two spaces; a row without such padding comes from a narrow table.
fn cells(line: &str) -> Vec<&str> {
    let cells: Vec<&str> = line
        .split("  ")
        .flat_map(|cell| cell.split('\t'))
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .collect();
    if cells.len() == 1 { line.split_ascii_whitespace().collect() } else { cells }
}

/// The columns, if the cells are headings.
fn headings(cells: &[&str]) -> Option<Vec<Column>> {
    let is_heading = |cell: &&str| {
        cell.chars().any(|c| c.is_ascii_uppercase()) && !cell.chars().any(|c| c.is_ascii_lowercase())
    };
    let columns: Vec<Column> = cells.iter().map(|cell| Column::of(cell)).collect();
    (cells.iter().all(is_heading) && columns.iter().any(|column| *column != Column::Other)).then_some(columns)
}

fn check_headings(columns: &[Column], cells: &[&str], line: usize) -> Result<(), Error> {
    let has = |column: Column| columns.contains(&column);
    if has(Column::PullSecrets) {
        return Ok(());
    }
    if !has(Column::Name) {
        let message = "no column NAME: name the columns NAMESPACE, NAME and TYPE";
        return Err(Error::new(line, message));
    }
    if has(Column::Type) || has(Column::Addresses) {
        return Ok(());
    }
    match OTHER_TABLES.iter().find(|(heading, _)| cells.contains(heading)) {
        Some((_, resource @ "nodes")) => {
            let message =
                format!("a table of {resource}, which shows no addresses: use `-o wide` or `-o json`");
            Err(Error::new(line, message))
        }
        Some((_, resource)) => {
            let message = format!("a table of {resource}, which shows no secrets: use `-o json` for them");
            Err(Error::new(line, message))
        }
        None => Ok(()),
    }
}

/// Whether a text is the age of an object.
fn is_age(cell: &str) -> bool {
    cell.starts_with(|c: char| c.is_ascii_digit())
        && cell.ends_with(['s', 'm', 'h', 'd', 'y'])
        && cell.bytes().all(|byte| byte.is_ascii_digit() || b"smhdy".contains(&byte))
}

/// The columns of a table without headings, determined from its first row.
fn guess(cells: &[&str]) -> Option<Vec<Column>> {
    use Column::{Name, Namespace, Other, Type};
    let is_number = |cell: &str| cell.bytes().all(|byte| byte.is_ascii_digit());
    let is_type = |cell: &str| cell.contains('/') || cell == "Opaque";
    match cells {
        [namespace, name, _, number, age]
            if is_name(namespace) && is_name(name) && is_number(number) && is_age(age) =>
        {
            Some(vec![Namespace, Name, Type, Other, Other])
        }
        [name, _, number, age] if is_name(name) && is_number(number) && is_age(age) => {
            Some(vec![Name, Type, Other, Other])
        }
        [namespace, name, kind] if is_name(namespace) && is_name(name) && is_type(kind) => {
            Some(vec![Namespace, Name, Type])
        }
        [name, kind] if is_name(name) && is_type(kind) => Some(vec![Name, Type]),
        [namespace, name] if is_name(namespace) && is_name(name) => Some(vec![Namespace, Name]),
        _ => None,
    }
}

/// The reason why a row cannot be added.
enum Problem {
    InventoryFull(InventoryFull),
    Row(String),
}

impl From<InventoryFull> for Problem {
    fn from(full: InventoryFull) -> Self {
        Problem::InventoryFull(full)
    }
}

fn add_row(columns: &[Column], cells: &[&str], builder: &mut Builder<'_>) -> Result<(), Problem> {
    let cell = |column: Column| {
        let index = columns.iter().position(|other| *other == column)?;
        cells.get(index).copied().filter(|cell| !matches!(*cell, "<none>" | "<unknown>"))
    };
    // A truncated age or column count does not matter; the first columns do.
    let last_needed = columns.iter().rposition(|column| *column != Column::Other).unwrap_or_default();
    if cells.len() <= last_needed {
        return Err(Problem::Row(format!(
            "{} columns, where the headings have {}",
            cells.len(),
            columns.len()
        )));
    }
    let namespace = cell(Column::Namespace).unwrap_or(builder.namespace).to_owned();
    for name in cell(Column::PullSecrets).into_iter().flat_map(|names| names.split(',')) {
        let secret = DeclaredSecret { is_referenced: true, ..DeclaredSecret::default() };
        builder.add_named(&namespace, name.trim(), secret)?;
    }
    if columns.contains(&Column::PullSecrets) {
        return Ok(());
    }
    let name = cell(Column::Name).unwrap_or_default();
    if columns.contains(&Column::Addresses) {
        return add_node(columns, cells, name, builder);
    }
    // In tables of several resources, the resource precedes the name.
    let (resource, name) = name.split_once('/').unwrap_or(("secret", name));
    if !matches!(resource, "secret" | "secrets") {
        builder.ignored += 1;
        return Ok(());
    }
    if !is_name(name) {
        return Err(Problem::Row("the column NAME does not hold the name of a secret".to_owned()));
    }
    let secret_type = cell(Column::Type).map(str::to_owned).and_then(checked_type);
    Ok(builder.add_named(&namespace, name, DeclaredSecret { secret_type, ..DeclaredSecret::default() })?)
}

/// Adds a row of `kubectl get nodes -o wide`.
fn add_node(
    columns: &[Column],
    cells: &[&str],
    name: &str,
    builder: &mut Builder<'_>,
) -> Result<(), Problem> {
    let name = name.strip_prefix("node/").unwrap_or(name);
    if !is_name(name) {
        return Err(Problem::Row("the column NAME does not hold the name of a node".to_owned()));
    }
    let mut node = DeclaredNode::default();
    for (_, cell) in columns.iter().zip(cells).filter(|(column, _)| **column == Column::Addresses) {
        cell.split(',').for_each(|address| node.add_address(address.trim()));
    }
    if builder.add_node(name, &node)? {
        builder.objects += 1;
    } else {
        builder.ignored += 1;
    }
    Ok(())
}

/// Adds a line of `kubectl get -o name`, such as `secret/regcred`.
fn add_name(line: &str, builder: &mut Builder<'_>) -> Result<(), InventoryFull> {
    match line.split_once('/') {
        Some(("secret" | "secrets", name)) if is_name(name) => {
            let namespace = builder.namespace.to_owned();
            builder.add_named(&namespace, name, DeclaredSecret::default())
        }
        _ => {
            builder.ignored += 1;
            Ok(())
        }
    }
}
