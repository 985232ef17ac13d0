//! The thinnest main.

fn main() -> std::process::ExitCode {
    pullwatch::run()
}
