//! `/configz`, `/statusz` and `/flagz`: what this process is and what it was told, for people. The forms are kube-proxy's.

use std::time::{Duration, Instant};

use portolan_k8s::Timestamp;
use serde_json::json;

use super::Config;

/// What the port for operators has, for the list in `/statusz`.
const PATHS: &str =
    "/configz /counters /ejected /flagz /healthz /livez /metrics /proxyMode /statusz";

const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility \
    guarantees and is for debugging purposes only.";

/// What the pages say; none of it changes while the process runs, but its age.
#[derive(Debug)]
pub(super) struct Pages {
    config: Config,
    /// The command line, without the program.
    words: Vec<String>,
    started: Timestamp,
    since: Instant,
}

impl Default for Pages {
    fn default() -> Self {
        Pages::new(Config::default())
    }
}

impl Pages {
    /// Of a process that begins now.
    pub(super) fn new(config: Config) -> Self {
        Pages {
            config,
            words: std::env::args().skip(1).collect(),
            started: Timestamp::now(),
            since: Instant::now(),
        }
    }

    /// The configuration with all defaults, as JSON; names are those of the file. The mode is the one that runs.
    pub(super) fn configz(&self, mode: &str) -> String {
        let mut config = self.config.clone();
        config.mode = mode.into();
        json!({"kubeproxy.config.k8s.io": config}).to_string()
    }

    /// What runs here, and for how long.
    pub(super) fn statusz(&self, mode: &str) -> String {
        let started = self.started.strftime("%a %b %e %H:%M:%S UTC %Y");
        format!(
            "\nkube-proxy statusz\n{WARNING}\n\nStarted: {started}\nUp: {}\nBinary version: portolan {}\nProxy mode: {mode}\nPaths: {PATHS}\n",
            up(self.since.elapsed()),
            env!("CARGO_PKG_VERSION"),
        )
    }

    /// The flags that were given, one a line.
    pub(super) fn flagz(&self) -> String {
        let flags = self.words.join("\n");
        format!("\nkube-proxy flags\n{WARNING}\n\n{flags}\n")
    }
}

fn up(age: Duration) -> String {
    let seconds = age.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours} hr {minutes:02} min {:02} sec", seconds % 60)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_whole_configuration_is_told() {
        let text = Pages::default().configz("ipvs");
        let value: Value = serde_json::from_str(&text).unwrap();
        let config = &value["kubeproxy.config.k8s.io"];
        assert_eq!(config["kind"], "KubeProxyConfiguration");
        assert_eq!(config["mode"], "ipvs");
        assert_eq!(config["conntrack"]["maxPerCore"], 32768);
        assert_eq!(config["nftables"]["syncPeriod"], "30s");
        assert_eq!(config["healthzBindAddress"], "0.0.0.0:10256");
    }

    #[test]
    fn people_see_what_runs_and_since_when() {
        let pages = Pages {
            words: vec!["proxy".into(), "--v=4".into()],
            started: "2026-01-02T03:04:05Z".parse().unwrap(),
            ..Pages::default()
        };
        let text = pages.statusz("nftables");
        for words in [
            "\nkube-proxy statusz\n",
            "Fri Jan  2 03:04:05 UTC 2026",
            "Up: 0 hr 00 min",
            "Proxy mode: nftables",
            "/configz",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(pages.flagz().ends_with("\n\nproxy\n--v=4\n"));
        assert_eq!(up(Duration::from_secs(90_061)), "25 hr 01 min 01 sec");
    }
}
