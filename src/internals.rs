//! Re-exports for integration tests, benchmarks and fuzz targets, which use single components (the store, a sink, the rule parser). The
//! modules themselves are private, so that the compiler finds unused items.

#![allow(missing_docs)]

#[cfg(feature = "daemon")]
pub mod daemon {
    pub mod config {
        pub mod keys {
            pub use crate::daemon::config::keys::{SECTIONS, Section};
        }
    }
    pub mod metrics {
        pub use crate::daemon::metrics::{Definition, Metrics, TABLE, WebhookMetrics};
    }
    pub mod net {
        pub use crate::daemon::net::Tls;
    }
    pub mod server {
        pub use crate::daemon::server::{
            Acknowledgement, AlertLog, AlertPage, AlertQuery, Backend, Health, HealthCheck, IdLookup,
            LogError, RuleStatus, ServedAlert, Server, Settings, SinkStatus, SourceStatus, StatusSource,
        };
    }
    pub mod sink {
        pub use crate::daemon::sink::{
            Alertmanager, Body, DeadLetter, Facility, Feed, FeedError, File, Format, Http, Kind, Loki,
            Reopen, Retry, Secret, Sink, SinkConfig, SinkError, SinkMetrics, Syslog, Template, TlsSettings,
            Transport, run,
        };
    }
    pub mod source {
        pub mod webhook {
            pub use crate::daemon::source::webhook::{
                BatchOutcome, InvalidBody, Receiver, RecentEvents, Settings, WebhookBatch, split_events,
            };
        }
    }
    pub mod store {
        pub use crate::daemon::store::{
            Ack, Batch, Committed, Cursor, Error, Filter, IdMatch, IdPrefix, Opened, Options, Retention,
            SinkStart, StateChange, Store, StoreReader, acknowledge,
        };
    }
}
pub mod detection {
    pub mod alert {
        pub use crate::detection::alert::{AlertId, NewAlert, Priority, StoredAlert, push_hex};
    }
    pub mod audit {
        pub mod envelope {
            pub use crate::detection::audit::envelope::Unwrapper;
        }
        pub mod event {
            pub use crate::detection::audit::event::{Event, Member};
        }
        pub mod event_id {
            pub use crate::detection::audit::event_id::digest;
        }
        #[cfg(fuzzing)]
        pub mod steps {
            pub use crate::detection::audit::steps::take;
        }
        pub mod time {
            pub use crate::detection::audit::time::write_rfc3339;
        }
    }
    pub mod detector {
        pub use crate::detection::detector::{Detector, LogContext, Options, Session, Stats};
        pub mod evicted {
            pub use crate::detection::detector::evicted::{FOREIGN_RULE_SET, STATE};
        }
        pub mod repartition {
            pub use crate::detection::detector::repartition::{Outgoing, ReplayEnd, Settings};
        }
    }
    pub mod policy {
        pub use crate::detection::policy::{Level, Policy, Stage, Verdict, coverage, read};
        pub mod model {
            pub use crate::detection::policy::model::{Attributes, Target, User};
        }
        pub mod requests {
            pub use crate::detection::policy::requests::{Request, all};
        }
    }
    pub mod registry {
        pub use crate::detection::registry::{Controller, ExpectedRead, controllers};
    }
    pub mod rules {
        pub use crate::detection::rules::{Loaded, Matching, Options, SourceFile, load, render};
        pub mod ast {
            pub use crate::detection::rules::ast::{
                Comparison, Expr, Feed, FieldArgument, Operand, Operator, Quantifier, Right, RuleSet,
                Transformer,
            };
        }
        pub mod fields {
            pub use crate::detection::rules::fields::{Argument, Field, Source, all, of_correlations};
        }
        pub mod parse {
            pub use crate::detection::rules::parse::condition;
        }
        pub mod posix {
            pub use crate::detection::rules::posix::compile;
        }
        pub mod template {
            pub use crate::detection::rules::template::parse;
        }
    }
    pub mod shorten {
        pub use crate::detection::shorten::{stored, write};
    }
    pub mod state {
        pub use crate::detection::state::StateChange;
        pub mod kind {
            pub use crate::detection::state::kind::{ALL, NODE, READER, SECRET, THROTTLE, WINDOW};
        }
    }
}
pub mod shipped {
    pub use crate::shipped::files;
}
pub mod text {
    pub mod escape {
        pub use crate::text::escape::{escape_json, is_disruptive};
    }
}
