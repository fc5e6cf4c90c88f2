//! Where log lines of long-running commands go: to standard error, as `RUST_LOG` says.

use tracing_subscriber::EnvFilter;

/// Starts logging; what is worth knowing, unless `RUST_LOG` asks for more or less.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
    if started.is_err() {
        tracing::debug!("logging had been started already");
    }
}
