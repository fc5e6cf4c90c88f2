//! Running the tools: `iptables-restore`, `iptables-save`, `iptables`, each for one family and one variant.

use std::fmt::{self, Write as _};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use portolan_dataplane::iptables::{Fixed, Table};
use portolan_model::{ApplyError, Family};

use super::Variant;
use crate::command::CommandNamespaces;
use crate::netns::Netns;

/// How long a tool waits for another one that changes rules, in seconds. Ten times what the largest change takes.
const LOCK_WAIT_S: &str = "30";

/// Where the tools are, besides what the environment says: services often start without these.
const MORE_PATHS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// The tools of one variant, in one network namespace.
pub(super) struct Tool {
    pub variant: Variant,
    pub netns: Netns,
}

impl Tool {
    /// For the network namespace of the calling thread.
    pub fn here(variant: Variant) -> Result<Self, ApplyError> {
        let netns = Netns::current().map_err(|error| ApplyError {
            doing: "cannot find out the network namespace".into(),
            words: error.to_string(),
        })?;
        Ok(Tool { variant, netns })
    }

    /// Whether this machine has the tools.
    pub fn is_installed(&self) -> bool {
        let name = self.name(Family::V4, "-save");
        search_path()
            .split(':')
            .any(|dir| Path::new(dir).join(&name).is_file())
    }

    /// Feeds `iptables-restore` with what `write` writes. Each table in it is committed as a whole or not at all.
    /// Writing nothing runs nothing.
    pub fn restore(
        &self,
        family: Family,
        write: impl Fn(&mut dyn fmt::Write) -> fmt::Result,
    ) -> Result<(), ApplyError> {
        let mut any = Any(false);
        // A refusal to write more says that there is something.
        if write(&mut any).is_ok() && !any.0 {
            return Ok(());
        }
        let name = self.name(family, "-restore");
        let mut child = self.start(&name, &["--noflush", "--wait", LOCK_WAIT_S], Stdio::piped())?;
        let pipe = child.stdin.take().expect("invariant: it was asked for");
        let mut pipe = Pipe {
            out: BufWriter::new(pipe),
            error: None,
        };
        let written = write(&mut pipe).is_ok() && pipe.out.flush().is_ok();
        let broken = pipe.error.take();
        drop(pipe);
        let output = self.end(child, &name)?;
        if output.status.success() && written {
            return Ok(());
        }
        let mut words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if let (true, Some(error)) = (words.is_empty(), broken) {
            words = error.to_string();
        }
        if let Some(number) = line_number(&words) {
            let mut find = Find {
                number,
                at: 1,
                line: String::new(),
            };
            // It stops when the line has been found.
            let _ = write(&mut find);
            let _ = write!(words, ": {}", find.line);
        }
        Err(ApplyError {
            doing: format!("{name} refused"),
            words,
        })
    }

    /// What `iptables-save` prints, of one table or of all.
    pub fn save(&self, family: Family, table: Option<Table>) -> Result<String, ApplyError> {
        let name = self.name(family, "-save");
        let arguments: Vec<&str> = table.iter().flat_map(|t| ["-t", t.name()]).collect();
        let child = self.start(&name, &arguments, Stdio::null())?;
        let output = self.end(child, &name)?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(ApplyError {
                doing: format!(
                    "{name} failed; does this kernel have what --proxy-mode iptables needs?"
                ),
                words: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            }),
        }
    }

    /// Whether our canary stands in every table of both families.
    pub fn canaries_stand(&self) -> Result<bool, ApplyError> {
        for family in Family::ALL {
            for table in Table::ALL {
                let name = self.name(family, "");
                let canary = Fixed::Canary.name();
                let arguments = [
                    "--wait",
                    LOCK_WAIT_S,
                    "-n",
                    "-t",
                    table.name(),
                    "-L",
                    canary,
                ];
                let child = self.start(&name, &arguments, Stdio::null())?;
                if !self.end(child, &name)?.status.success() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn name(&self, family: Family, what: &str) -> String {
        let program = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        format!("{program}-{}{what}", self.variant.name())
    }

    fn start(&self, name: &str, arguments: &[&str], input: Stdio) -> Result<Child, ApplyError> {
        let mut command = Command::new(name);
        command
            .args(arguments)
            .env("PATH", search_path())
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let told = |words: String| ApplyError {
            doing: format!("cannot run {name}; --proxy-mode iptables needs the package iptables"),
            words,
        };
        let command = command
            .in_netns(&self.netns)
            .map_err(|error| told(error.to_string()))?;
        command.spawn().map_err(|error| told(error.to_string()))
    }

    fn end(&self, child: Child, name: &str) -> Result<Output, ApplyError> {
        child.wait_with_output().map_err(|error| ApplyError {
            doing: format!("cannot wait for {name}"),
            words: error.to_string(),
        })
    }
}

fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:{MORE_PATHS}")
}

/// The number of the line that the tool complains about: `line 5 failed`, `Error occurred at line: 5`.
fn line_number(words: &str) -> Option<usize> {
    let (_, rest) = words.split_once("line")?;
    let digits = rest.trim_start_matches([':', ' ']);
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// Notices whether anything is written, and stops at once.
struct Any(bool);

impl fmt::Write for Any {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 |= !text.is_empty();
        match self.0 {
            true => Err(fmt::Error),
            false => Ok(()),
        }
    }
}

struct Pipe<W: Write> {
    out: W,
    error: Option<std::io::Error>,
}

impl<W: Write> fmt::Write for Pipe<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.out.write_all(text.as_bytes()).map_err(|error| {
            self.error = Some(error);
            fmt::Error
        })
    }
}

/// Keeps one line of what is written.
struct Find {
    number: usize,
    at: usize,
    line: String,
}

impl fmt::Write for Find {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '\n' => self.at += 1,
                c if self.at == self.number => self.line.push(c),
                _ => {}
            }
            if self.at > self.number {
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found() {
        assert_eq!(line_number("iptables-restore: line 5 failed"), Some(5));
        assert_eq!(
            line_number("x\nError occurred at line: 12\nTry more"),
            Some(12)
        );
        assert_eq!(line_number("no such table"), None);
        let mut find = Find {
            number: 2,
            at: 1,
            line: String::new(),
        };
        assert!(find.write_str("one\ntw").is_ok());
        assert!(find.write_str("o\nthree\n").is_err());
        assert_eq!(find.line, "two");
    }
}
