//! Laws about shell scripts.

use std::io::Write;
use std::process::{Command, Stdio};

use super::{Breach, breach};
use crate::tree::Tree;

pub fn parse(tree: &Tree) -> Vec<Breach> {
    let is_script = |(path, text): &(&str, &str)| {
        path.ends_with(".sh")
            || text.starts_with("#!/usr/bin/env bash")
            || text.starts_with("#!/bin/bash")
    };
    let mut found = Vec::new();
    for (path, text) in tree.files().filter(is_script) {
        if !text.contains("set -euo pipefail") {
            found.push(breach(path, 1, "write `set -euo pipefail` at the top"));
        }
        if let Err(words) = bash_parses(text) {
            found.push(breach(path, 0, words));
        }
    }
    found
}

fn bash_parses(text: &str) -> Result<(), String> {
    let run = || -> std::io::Result<std::process::Output> {
        let mut bash = Command::new("bash")
            .arg("-n")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = bash.stdin.take() {
            input.write_all(text.as_bytes())?;
        }
        bash.wait_with_output()
    };
    match run() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("bash -n could not run: {error}")),
    }
}
