//! Alerts in real receivers: Alertmanager, VictoriaLogs (with Loki's push API) and Prometheus. Skipped where they are not installed;
//! with `PULLWATCH_REQUIRE_RECEIVERS` in the environment that is a failure.

#![allow(clippy::unwrap_used)]

mod alertmanager;
mod collector;
#[path = "../common/mod.rs"]
mod common;
mod dashboards;
mod grafana;
mod logql;
mod loki;
mod opensearch;
mod protocols;
mod resend;
mod rig;
