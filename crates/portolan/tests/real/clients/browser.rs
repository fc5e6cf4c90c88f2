//! A browser (headless Chromium): a page by HTTP/2, a WebSocket from the page, and whose certificates it believes in.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::isolated;
use serde_json::{Value, json};

use super::{Authority, is_there, path_to, python, script, until_believed, with_tls};
use crate::gateway::{ADDRESS, POD, World, manifest};
use crate::node::until_or;

/// A browser that has not ended by then hangs.
const BROWSER_MAX: Duration = Duration::from_secs(60);

/// It asks nobody but the gateway, and nobody about updates.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--dump-dom",
];

/// A person, with a home that is empty but for the authority that they believe in.
struct Person {
    home: tempfile::TempDir,
}

impl Person {
    fn who_believes_in(authority: &Authority) -> Person {
        let home = tempfile::tempdir().unwrap();
        let store = home.path().join(".pki/nssdb");
        std::fs::create_dir_all(&store).unwrap();
        let store = format!("sql:{}", store.display());
        let certutil = |arguments: &[&str]| {
            let mut command = Command::new("certutil");
            let status = command.args(["-d", &store]).args(arguments).status();
            let status = status.expect("certutil is there (scripts/setup.sh installs it)");
            assert!(status.success(), "certutil {arguments:?}: {status}");
        };
        certutil(&["-N", "--empty-password"]);
        let file = authority.file();
        let file = file.to_str().unwrap();
        certutil(&["-A", "-n", "test", "-t", "C,,", "-i", file]);
        Person { home }
    }

    /// The document, when the page and all that belongs to it is there, and why there is none; a browser is started anew
    /// for each.
    fn looks_at(&self, url: &str) -> [String; 2] {
        self.looks_at_by(url, "--disable-quic")
    }

    /// The same, and a word about the protocol.
    fn looks_at_by(&self, url: &str, protocol: &str) -> [String; 2] {
        let profile = tempfile::tempdir_in(self.home.path()).unwrap();
        let (out, errors) = (profile.path().join("out"), profile.path().join("errors"));
        let file = |path: &Path| std::fs::File::create(path).unwrap();
        let mut command = Command::new("chromium");
        command
            .args(FLAGS)
            .arg(protocol)
            .arg(format!("--user-data-dir={}/data", profile.path().display()))
            .arg(format!(
                "--host-resolver-rules=MAP *.apps.example {ADDRESS}, MAP * ~NOTFOUND"
            ))
            .arg(url)
            .env("HOME", self.home.path())
            .env("XDG_CONFIG_HOME", self.home.path().join("config"))
            .env("XDG_CACHE_HOME", self.home.path().join("cache"))
            .env("NO_PROXY", "*")
            .stdin(Stdio::null())
            .stdout(file(&out))
            .stderr(file(&errors))
            .die_with_parent(Signal::SIGKILL);
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let mut child = Ended(command.spawn().unwrap());
        let deadline = Instant::now() + BROWSER_MAX;
        while child.0.try_wait().unwrap().is_none() {
            let said = || format!("{}\n{}", read(&out), read(&errors));
            assert!(Instant::now() < deadline, "the browser hangs: {}", said());
            std::thread::park_timeout(Duration::from_millis(50));
        }
        // Its complaints about the desktop that is not there have other words.
        let errors = read(&errors);
        let why = errors.lines().filter(|line| line.contains("net"));
        [read(&out), why.collect::<Vec<_>>().join("\n")]
    }
}

/// Ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_browser_shows_the_page_and_believes_in_the_right_certificate_only() {
    if !is_there("chromium") {
        eprintln!(
            "SKIPPED: there is no chromium; scripts/setup.sh installs it where a registry has it"
        );
        return;
    }
    isolated!(
        a_browser_shows_the_page_and_believes_in_the_right_certificate_only,
        {
            let (mut world, authority) = (World::new(), Authority::new());
            let result = world.dir().join("result");
            let (port, page) = (world.port(), script("page.html"));
            let site = [POD, &port.to_string(), &page, result.to_str().unwrap()];
            world.run(python("site.py", &site));
            world.endpoint("site", port);
            world.service("echo", 1);
            let host = "shop.apps.example";
            let paths = [
                path_to("/", "Prefix", "site"),
                path_to("/echo", "Prefix", "echo"),
            ];
            let own = with_tls("shop", json!({}), host, &paths);
            // This one shows a certificate that the authority has made for somebody else.
            let mut other = with_tls("other", json!({}), "other.apps.example", &paths);
            other["spec"]["tls"][0]["secretName"] = "shop".into();
            let objects = [authority.secret("shop", host), own, other];
            world.server.apply(&manifest(&objects));
            world.until_served("other");
            until_believed(&world, &authority, host);
            for path in ["/", "/echo"] {
                let ask = || world.get(host, path).0;
                until_or(|| ask() == 200, || format!("{path}: {}", ask()));
            }

            let person = Person::who_believes_in(&authority);
            let [document, why] = person.looks_at("https://shop.apps.example/");
            assert!(document.contains("The page is here."), "{document}\n{why}");
            let said = std::fs::read(&result);
            let said: Value = serde_json::from_slice(&said.expect("the page has posted")).unwrap();
            assert_eq!(said["error"], Value::Null, "{said}");
            assert_eq!(said["fetched"]["pod"], "echo", "{said}");
            assert_eq!(said["fetched"]["path"], "/echo/fetched?a=1", "{said}");
            for path in ["/", "/echo/fetched"] {
                assert_eq!(said["protocols"][path], "h2", "{path}: {said}");
            }
            let socket = &said["socket"];
            assert_eq!(socket["pod"], "echo", "{said}");
            assert_eq!(socket["said"], "from the page", "{said}");
            assert_eq!(socket["path"], "/echo/socket", "{said}");
            assert_eq!(
                (&socket["code"], &socket["clean"]),
                (&json!(1000), &json!(true))
            );

            // The same by HTTP/3; a WebSocket comes by HTTP/1.1 nevertheless.
            std::fs::remove_file(&result).unwrap();
            let quic = "--origin-to-force-quic-on=shop.apps.example:443";
            let [document, why] = person.looks_at_by("https://shop.apps.example/", quic);
            assert!(document.contains("The page is here."), "{document}\n{why}");
            let said = std::fs::read(&result);
            let said: Value = serde_json::from_slice(&said.expect("the page has posted")).unwrap();
            assert_eq!(said["error"], Value::Null, "{said}");
            for path in ["/", "/echo/fetched"] {
                assert_eq!(said["protocols"][path], "h3", "{path}: {said}");
            }
            assert_eq!(said["socket"]["said"], "from the page", "{said}");

            // The same page under a name that the certificate does not have.
            std::fs::remove_file(&result).unwrap();
            let [document, why] = person.looks_at("https://other.apps.example/");
            assert_eq!(document, "");
            assert!(why.contains("ERR_CERT_COMMON_NAME_INVALID"), "{why}");
            // And somebody who has never heard of the authority.
            let stranger = Person::who_believes_in(&Authority::new());
            let [document, why] = stranger.looks_at("https://shop.apps.example/");
            assert_eq!(document, "");
            assert!(why.contains("ERR_CERT_AUTHORITY_INVALID"), "{why}");
            assert!(!result.exists());
        }
    );
}
