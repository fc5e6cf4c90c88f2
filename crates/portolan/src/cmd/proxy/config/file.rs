//! `--config FILE`: read at the start, watched from then on, and written by `--write-config-to`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use ipnet::IpNet;

use super::decode::Decoded;
use super::{Config, decode};

/// How often it is looked whether the file has changed. A ConfigMap reaches its pods after a minute or so, and by a
/// symbolic link to another directory, which watches of the file itself do not see.
pub(in crate::cmd::proxy) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A file that has been read.
#[derive(Debug)]
pub(in crate::cmd::proxy) struct File {
    pub(in crate::cmd::proxy) path: PathBuf,
    /// What stands in it.
    text: String,
    /// What that means, before any flag goes over it.
    pub(in crate::cmd::proxy) config: Config,
}

/// Reads the configuration; the error names every line that is wrong. The texts are warnings.
pub(in crate::cmd::proxy) fn load(path: &Path) -> anyhow::Result<(File, Config, Vec<String>)> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("--config {name}"))?;
    let Decoded { config, warnings } = decode(&text).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(|error| format!("  {error}")).collect();
        anyhow::anyhow!("--config {name} cannot be used:\n{}", lines.join("\n"))
    })?;
    let warnings = warnings.iter().map(|warning| format!("{name} {warning}"));
    let warnings = warnings.collect();
    let file = File {
        path: path.into(),
        text,
        config: config.clone(),
    };
    Ok((file, config, warnings))
}

/// What has become of the file's meaning.
#[derive(Debug, PartialEq)]
pub(in crate::cmd::proxy) enum Change {
    /// Nothing but the mode differs.
    Mode,
    /// Anything else.
    More,
}

/// Waits until something else stands in the file that can be used; what cannot is told once, and the proxy goes on with
/// what it has. `check` says whether a configuration makes sense here. Without a file, for ever.
pub(in crate::cmd::proxy) async fn changed(
    file: Option<&mut File>,
    look_every: Duration,
    check: fn(&Config) -> anyhow::Result<()>,
) -> Change {
    let Some(file) = file else {
        return std::future::pending().await;
    };
    let mut clock = tokio::time::interval(look_every);
    loop {
        clock.tick().await;
        // A file that is not there at this moment is about to be replaced.
        let Ok(text) = tokio::fs::read_to_string(&file.path).await else {
            continue;
        };
        if text == file.text {
            continue;
        }
        file.text = text;
        let loaded = load(&file.path);
        let loaded = loaded.and_then(|(_, config, _)| check(&config).map(|()| config));
        match loaded {
            Ok(config) => match take(file, config) {
                Some(change) => return change,
                None => tracing::info!("the configuration file says the same in other words"),
            },
            Err(error) => tracing::error!("keeping the configuration from before: {error:#}"),
        }
    }
}

/// What differs, if anything does: it may be a comment.
fn take(file: &mut File, config: Config) -> Option<Change> {
    let before = std::mem::replace(&mut file.config, config);
    let now = &file.config;
    let with_its_mode = Config {
        mode: now.mode.clone(),
        ..before.clone()
    };
    match () {
        () if before == *now => None,
        () if with_its_mode == *now => Some(Change::Mode),
        () => Some(Change::More),
    }
}

/// Writes a configuration as `--config` reads it.
pub(in crate::cmd::proxy) fn write(config: &Config, path: &Path) -> anyhow::Result<()> {
    let text = serde_norway::to_string(config)?;
    std::fs::write(path, text).with_context(|| format!("--write-config-to {}", path.display()))
}

/// Whether a text is one of those that say where NodePorts answer.
pub(super) fn node_port_place(text: &str) -> Result<(), String> {
    match text {
        "primary" | "all" | "localhost" => Ok(()),
        range => range.parse::<IpNet>().map(drop).map_err(|_| {
            format!("{range} is none of primary, all, a range such as 192.168.0.0/24")
        }),
    }
}
