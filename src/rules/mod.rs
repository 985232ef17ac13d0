//! The rule language: from the text of rule files to a checked [`ast::RuleSet`], or to errors with a place.

pub mod ast;
