//! Who asks: wrk for HTTP/1.1, h2load for HTTP/2 and handshakes, and pace.rs. One run, and what it says of itself.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::topology::Host;

use super::pace;
use super::site::Site;
use crate::contender::find;
use crate::lane;
use crate::samples::Samples;

/// Connections of a run as fast as it can; so that no server is idle while others of its requests are on their way.
const CONNECTIONS: &str = "64";
/// Connections and streams of each for HTTP/2.
const HTTP2: [&str; 2] = ["16", "8"];
/// New connections in a second, and for how long.
const HANDSHAKES_PER_SECOND: u64 = 500;
/// A run that takes so much longer than it should hangs.
const HANGS_AFTER: Duration = Duration::from_secs(30);

/// wrk asks at all places of a file, one after the other.
const SCRIPT: &str = "local requests = {}
local at = 0
function init(args)
  for line in io.lines(PLACES) do
    local host, path = line:match('(%S+) (%S+)')
    requests[#requests + 1] = wrk.format('GET', path, {Host = host})
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Small,
    Large,
    Http2,
    Handshake,
    /// Small bodies, of all routes.
    Routes,
    Paced,
}

/// What a run said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// Requests that were answered.
    pub requests: f64,
    /// Of a request, if each was looked at.
    pub times: Samples,
}

/// Who asks, from where, and what it needs for it.
pub struct Client<'a> {
    pub host: &'a Host,
    pub core: usize,
    pub folder: &'a Path,
}

impl Kind {
    /// What reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Small => "HTTP/1.1, 128 bytes",
            Kind::Large => "HTTP/1.1, 64 KiB",
            Kind::Http2 => "HTTP/2 in TLS, 128 bytes",
            Kind::Handshake => "TLS handshakes with one request each",
            Kind::Routes => "HTTP/1.1, 128 bytes of every route",
            Kind::Paced => "3200 requests a second",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Kind::Large => "/p0/big",
            _ => "/p0/small",
        }
    }
}

/// The tools that are missing, with how to get them.
pub fn missing() -> Option<&'static str> {
    let tools = [
        ("wrk", "there is no wrk: apt-get install wrk"),
        (
            "h2load",
            "there is no h2load: apt-get install nghttp2-client",
        ),
    ];
    let mut missing = tools.into_iter().filter(|(tool, _)| find(tool).is_none());
    missing.next().map(|(_, words)| words)
}

impl Client<'_> {
    /// Writes down what all runs at all routes of a site need.
    pub fn prepare(&self, site: Site) -> Result<(), String> {
        let places = self.folder.join("places");
        let lines = site.places().map(|(host, path)| format!("{host} {path}\n"));
        let script = SCRIPT.replace("PLACES", &format!("'{}'", places.display()));
        std::fs::write(&places, lines.collect::<String>())
            .and_then(|()| std::fs::write(self.folder.join("script.lua"), script))
            .map_err(|e| e.to_string())
    }

    /// Asks a server for a while.
    pub fn run(&self, server: Ipv4Addr, kind: Kind, time: Duration) -> Result<Run, String> {
        match kind {
            Kind::Small | Kind::Large | Kind::Routes => self.wrk(server, kind, time),
            Kind::Http2 | Kind::Handshake => self.h2load(server, kind, time),
            Kind::Paced => self.paced(server, time),
        }
    }

    fn wrk(&self, server: Ipv4Addr, kind: Kind, time: Duration) -> Result<Run, String> {
        let mut command = self.tool("wrk");
        command.args(["-t", "1", "-c", CONNECTIONS, "-d"]);
        // It knows whole seconds only.
        command.arg(format!("{}s", time.as_secs().max(1)));
        match kind {
            Kind::Routes => command.arg("-s").arg(self.folder.join("script.lua")),
            _ => command.args(["-H", &format!("Host: {}", Site::host(0))]),
        };
        command.arg(format!("http://{server}{}", kind.path()));
        Ok(Run {
            requests: wrk_said(&self.output(command)?)?,
            times: Samples::default(),
        })
    }

    fn h2load(&self, server: Ipv4Addr, kind: Kind, time: Duration) -> Result<Run, String> {
        let mut command = self.tool("h2load");
        match kind {
            Kind::Http2 => {
                let [connections, streams] = HTTP2;
                command.args(["-c", connections, "-m", streams, "-D"]);
                command.arg(time.as_secs().to_string());
            }
            Kind::Handshake => {
                let all = (HANDSHAKES_PER_SECOND * time.as_secs()).to_string();
                let rate = HANDSHAKES_PER_SECOND.to_string();
                command.args(["--h1", "-n", &all, "-c", &all, "-r", &rate]);
            }
            _ => return Err("h2load is not for this".into()),
        }
        command.arg(format!("--connect-to={server}:443"));
        command.arg(format!("https://{}{}", Site::host(0), kind.path()));
        Ok(Run {
            requests: h2load_said(&self.output(command)?)?,
            times: Samples::default(),
        })
    }

    fn paced(&self, server: Ipv4Addr, time: Duration) -> Result<Run, String> {
        let (host, path) = (Site::host(0), Kind::Paced.path());
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let run = || pace::run(self.core, server, &request, time);
        let times = self.host.run(run).map_err(|e| e.to_string())??;
        Ok(Run {
            requests: times.len() as f64,
            times: times.into_iter().collect(),
        })
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = lane::pinned(self.core, Path::new("timeout"));
        command.arg(HANGS_AFTER.as_secs().to_string()).arg(name);
        command
    }

    fn output(&self, mut command: Command) -> Result<String, String> {
        command
            .stdin(Stdio::null())
            .in_netns(&self.host.netns)
            .map_err(|e| e.to_string())?;
        let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(text),
            false => Err(format!(
                "{command:?}: {}: {text}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    }
}

/// The number in front of these words.
fn before(text: &str, words: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.contains(words))?;
    let (number, _) = line.split_once(words)?;
    number.split_whitespace().next_back()?.parse().ok()
}

fn wrk_said(text: &str) -> Result<f64, String> {
    let wrong = text.contains("Non-2xx") || text.contains("Socket errors");
    match before(text, " requests in ").filter(|count| *count > 0.0 && !wrong) {
        Some(count) => Ok(count),
        None => Err(format!("wrk says: {text}")),
    }
}

fn h2load_said(text: &str) -> Result<f64, String> {
    let count = |words: &str| before(text, words);
    let failed = [" failed", " errored", " timeout", " 3xx", " 4xx", " 5xx"];
    let all_right = failed.into_iter().all(|words| count(words) == Some(0.0));
    match count(" 2xx").filter(|count| *count > 0.0 && all_right) {
        Some(count) => Ok(count),
        None => Err(format!("h2load says: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "Running 2s test @ http://192.168.1.2/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.02ms  301.00us   9.10ms   90.00%
  123456 requests in 2.00s, 15.00MB read
Requests/sec:  61728.00
";
    const H2LOAD: &str = "finished in 2.00s, 12345.00 req/s, 1.2MB/s
requests: 24690 total, 24754 started, 24690 done, 24690 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 24690 2xx, 0 3xx, 0 4xx, 0 5xx
";

    #[test]
    fn what_wrk_says() {
        assert_eq!(wrk_said(WRK), Ok(123_456.0));
        assert!(wrk_said(&format!("{WRK}  Non-2xx or 3xx responses: 5\n")).is_err());
        assert!(wrk_said("").is_err());
    }

    #[test]
    fn what_h2load_says() {
        assert_eq!(h2load_said(H2LOAD), Ok(24_690.0));
        assert!(h2load_said(&H2LOAD.replace("0 5xx", "1 5xx")).is_err());
        assert!(h2load_said(&H2LOAD.replace("0 errored", "7 errored")).is_err());
        assert!(h2load_said("").is_err());
    }

    #[test]
    fn the_pace_is_what_its_name_says() {
        assert!(
            Kind::Paced
                .name()
                .starts_with(&(pace::CONNECTIONS * pace::PACE).to_string())
        );
    }
}
