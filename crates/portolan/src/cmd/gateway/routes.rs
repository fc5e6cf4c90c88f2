//! `portolan gateway routes`: the table as text.

use std::fmt::Write;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use portolan_gateway::policy::Policy;
use portolan_gateway::server::Live;
use portolan_gateway::tally::{Hits, Tally};
use portolan_gateway::{Destination, Followed, Row};
use tokio::task::JoinSet;

use super::{Args, followed};

/// A gateway that does not answer in this time is not there.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest answer that is read: some 500 000 routes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Lists everything once and prints what becomes of it.
#[expect(clippy::print_stdout, reason = "it is what the command is for")]
pub(super) async fn print(args: &Args) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let (_, mut listed) = followed(args, &mut tasks).await?;
    let listed = listed
        .wait_for(Option::is_some)
        .await
        .context("nothing follows the API any more")?;
    if let Some(followed) = &*listed {
        print!("{}", text(followed, None));
    }
    Ok(())
}

/// Prints what a gateway that runs says of its routes.
#[expect(clippy::print_stdout, reason = "it is what the command is for")]
pub(super) fn ask(of: SocketAddr) -> anyhow::Result<()> {
    let words =
        || format!("cannot ask {of} for its routes; it must be the --metrics-address of a gateway");
    let mut stream = TcpStream::connect_timeout(&of, PATIENCE).with_context(words)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream
        .write_all(b"GET /routes HTTP/1.0\r\n\r\n")
        .with_context(words)?;
    let mut answer = String::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_string(&mut answer)
        .with_context(words)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => print!("{body}"),
        _ => anyhow::bail!(words()),
    }
    Ok(())
}

/// One line for each route, with its hits where somebody has counted, then what is wrong, then who is not served.
pub(super) fn text(followed: &Followed, tally: Option<&Tally>) -> String {
    let rows = followed.live.table.rows();
    let head = ["HOST", "TYPE", "PATH", "BACKEND", "ENDPOINTS", "FROM"];
    let mut cells = vec![head.map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(|row| line(&followed.live, row).to_vec()));
    if let Some(tally) = tally {
        let hits = |row: &Row| tally.routes.get(&row.target.origin).map_or(0, Hits::total);
        let hits = rows.iter().map(|row| hits(row).to_string());
        let column = std::iter::once("HITS".to_owned()).chain(hits);
        let both = cells.iter_mut().zip(column);
        both.for_each(|(cells, hits)| cells.insert(5, hits));
    }
    let mut text = aligned(&cells);
    let routing = &followed.routing;
    for certificate in &routing.certificates {
        let _ = writeln!(
            text,
            "certificate: {} from Secret {}",
            certificate.host, certificate.secret
        );
    }
    for problem in &routing.problems {
        let _ = writeln!(text, "problem: {problem}");
    }
    for ignored in &routing.ignored {
        let _ = writeln!(text, "not served: {ignored}");
    }
    text
}

fn line(live: &Live, row: &Row) -> [String; 6] {
    let to = row.target.choose(0);
    let (backend, endpoints) = match to {
        Some(Destination::Port(key)) => {
            let count = live.endpoints.get(key);
            let count = count.map_or(0, |roster| roster.choices.addresses.len());
            (key.to_string(), count.to_string())
        }
        Some(Destination::Broken(status)) => {
            (format!("answers {}", status.as_u16()), "-".to_owned())
        }
        None => ("nobody".to_owned(), "-".to_owned()),
    };
    let origin = &row.target.origin;
    [
        row.host.clone(),
        row.kind.to_owned(),
        row.path.clone(),
        backend + &with(&row.target.policy),
        endpoints,
        format!("{} {}", origin.object, origin.field),
    ]
}

/// What is done besides, in a few words.
fn with(policy: &Policy) -> String {
    let mut words = Vec::new();
    if let Some(status) = policy.require_tls {
        words.push(format!("without TLS: {}", status.as_u16()));
    }
    if policy.closed {
        words.push("closed: 503".to_owned());
    }
    if let Some(redirect) = &policy.redirect {
        words.push(format!("redirect: {}", redirect.status.as_u16()));
    }
    if let Some(canary) = &policy.canary {
        words.push(match &canary.to {
            Destination::Port(key) => format!("canary: {key}"),
            Destination::Broken(status) => format!("canary: answers {}", status.as_u16()),
        });
    }
    let named = [
        (!policy.sources.is_empty(), "sources"),
        (policy.cors.is_some(), "CORS"),
        (!policy.limits.is_empty(), "limits"),
        (policy.body_max.is_some(), "body limit"),
        (policy.login.is_some(), "password"),
        (policy.judge.is_some(), "auth-url"),
        (policy.rewrite.is_some(), "rewrite"),
        (policy.mirror.is_some(), "mirror"),
        (policy.upstream.affinity.is_some(), "cookie"),
        (policy.upstream.check.is_some(), "checks"),
    ];
    words.extend(
        named
            .iter()
            .filter(|(is_set, _)| *is_set)
            .map(|(_, word)| (*word).to_owned()),
    );
    words.iter().map(|word| format!(", {word}")).collect()
}

/// Columns that begin below each other.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
