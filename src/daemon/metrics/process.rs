//! The standard `process_*` metrics, with the names, units and meaning of Prometheus' client libraries.
//!
//! Read from `/proc/self` at each scrape. Platforms without it do not have these series.

use std::sync::{Mutex, PoisonError};

use super::number::int;
use super::table::Instruments;

/// Clock ticks per second in `/proc/self/stat`: 100 on every architecture that Linux exports this file on (`USER_HZ`).
const USER_HZ: f64 = 100.0;

/// Serializes updates of the CPU counter: two simultaneous scrapes must not add the same ticks twice.
#[derive(Debug, Default)]
pub(super) struct ProcessMetrics {
    cpu_ticks: Mutex<u64>,
}

impl ProcessMetrics {
    /// Sets the series to the current values.
    pub(super) fn update(&self, all: &Instruments) {
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let bytes =
                |name| field(name)?.strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024);
            let threads = field("Threads:").and_then(|threads| threads.parse().ok());
            for (gauge, value) in [
                (&all.virtual_memory, bytes("VmSize:")),
                (&all.resident_memory, bytes("VmRSS:")),
                (&all.threads, threads),
            ] {
                if let Some(value) = value {
                    gauge.with_label_values::<&str>(&[]).set(int(value));
                }
            }
        }
        if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
            // One of them is the directory that is being read.
            let open = descriptors.count().saturating_sub(1) as u64;
            all.open_fds.with_label_values::<&str>(&[]).set(int(open));
        }
        if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
            all.max_fds.with_label_values::<&str>(&[]).set(int(limit));
        }
        if let Some(ticks) = std::fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_ticks) {
            let mut counted = self.cpu_ticks.lock().unwrap_or_else(PoisonError::into_inner);
            #[allow(clippy::cast_precision_loss)] // Exact for thousands of years of CPU time.
            let seconds = ticks.saturating_sub(*counted) as f64 / USER_HZ;
            all.cpu.with_label_values::<&str>(&[]).inc_by(seconds);
            *counted = ticks.max(*counted);
        }
    }
}

/// User and system time from `/proc/self/stat`: fields 14 and 15, counted from the end of the command, which may contain spaces and
/// parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::cpu_ticks;

    #[test]
    fn cpu_time_is_user_and_system_time() {
        let stat = "42 (pull) watch) R 1 42 42 0 -1 4194304 100 0 0 0 250 50 7 8 20 0 3 0 12345 1000000 300";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("42 (pullwatch) R 1"), None);
        assert_eq!(cpu_ticks(""), None);
    }
}
