//! The thinnest main.

fn main() {}
