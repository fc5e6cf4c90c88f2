//! Where log lines of long-running commands go: to standard error, as `RUST_LOG` says.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging; what is worth knowing, unless `RUST_LOG` asks for more or less.
pub fn start() {
    start_with(0, "text");
}

/// The same with a verbosity as klog counts it (4 and more: what happens inside; 6 and more: all), and as text or json.
pub fn start_with(verbosity: u32, format: &str) {
    let level = match verbosity {
        0..=3 => "info",
        4 | 5 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match format {
        "json" => builder.json().try_init(),
        _ => builder.try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging had been started already");
    }
}
