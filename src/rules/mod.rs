//! The rule language: from the text of rule files to a checked [`ast::RuleSet`], or to errors with a place.

pub mod ast;
pub mod posix;
/// stub
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matching { /// a
 First, /// b
 All }
