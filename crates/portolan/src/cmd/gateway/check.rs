//! `portolan gateway check`: what becomes of manifests that were made for ingress-nginx, annotation by annotation.
//!
//! Nothing is asked of any API: what depends on other objects of the cluster is not judged here, but by the gateway.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use portolan_gateway::ObjectName;
use portolan_gateway::ingress::{Note, Objects, Options, Standing, build};
use portolan_k8s::wire::ConfigMap;
use portolan_k8s::wire::networking::Ingress;
use serde_json::{Value, json};

/// Problems that the manifests alone have; others depend on what is in the cluster.
const JUDGED: [&str; 11] = [
    "CanaryAlone",
    "CanaryTaken",
    "DefaultBackendMissing",
    "InvalidHost",
    "InvalidPath",
    "KeyNotSupported",
    "LooksLikeRegex",
    "NothingToServe",
    "PathTaken",
    "RewriteWithoutGroup",
    "ResourceBackend",
];

/// Longest value that is shown in text, in characters; `-o json` has all of it.
const SHOWN_CHARS_MAX: usize = 60;

/// Arguments of `portolan gateway check`.
#[derive(clap::Args)]
pub struct Args {
    /// A manifest, or a directory of them (may be repeated).
    #[arg(short, long = "filename", required = true)]
    filename: Vec<PathBuf>,
    /// Print JSON or YAML.
    #[arg(short, long, value_parser = ["json", "yaml"])]
    output: Option<String>,
}

/// What is said of one object.
#[derive(Debug, Default)]
struct Said {
    notes: Vec<Note>,
    /// Reason and message.
    problems: Vec<(&'static str, String)>,
}

/// Prints the report; the code says whether something is refused.
#[expect(clippy::print_stdout, reason = "it is what the command is for")]
pub(super) fn run(args: &Args, options: Options) -> anyhow::Result<ExitCode> {
    let mut manifests = Vec::new();
    for path in &args.filename {
        let read = portolan_lab::apply::read(path);
        manifests.extend(read.with_context(|| format!("cannot read {}", path.display()))?);
    }
    let said = judge(&manifests, options)?;
    match args.output.as_deref() {
        Some("json") => println!("{}", serde_json::to_string_pretty(&value(&said))?),
        Some(_) => print!("{}", serde_norway::to_string(&value(&said))?),
        None => print!("{}", text(&said)),
    }
    Ok(match count(&said)[2..] == [0, 0] {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// What is said of all Ingresses, whatever their class, and of the operator's ConfigMap.
fn judge(manifests: &[Value], mut options: Options) -> anyhow::Result<BTreeMap<String, Said>> {
    let mut objects = Objects::default();
    let mut said = BTreeMap::new();
    for manifest in manifests {
        match manifest["kind"].as_str() {
            Some("Ingress") => {
                let mut ingress: Ingress =
                    serde_json::from_value(manifest.clone()).with_context(|| {
                        format!("cannot read Ingress {}", manifest["metadata"]["name"])
                    })?;
                ingress
                    .metadata
                    .namespace
                    .get_or_insert_with(|| "default".to_owned());
                ingress.spec.ingress_class_name = None;
                if let Some(annotations) = &mut ingress.metadata.annotations {
                    annotations.remove("kubernetes.io/ingress.class");
                }
                let name = ObjectName::of(&ingress.metadata);
                said.insert(format!("Ingress {name}"), Said::default());
                objects.ingresses.insert(name, Arc::new(ingress));
            }
            Some("ConfigMap") => {
                let map: ConfigMap =
                    serde_json::from_value(manifest.clone()).context("cannot read a ConfigMap")?;
                objects
                    .config_maps
                    .insert(ObjectName::of(&map.metadata), Arc::new(map));
            }
            _ => {}
        }
    }
    options.without_class = true;
    let routing = build(&objects, &options);
    for (name, note) in routing.notes {
        said.entry(format!("Ingress {name}"))
            .or_default()
            .notes
            .push(note);
    }
    for problem in routing.problems {
        let is_of_config = problem.kind == "ConfigMap";
        if is_of_config || JUDGED.contains(&problem.reason) {
            let said = said
                .entry(format!("{} {}", problem.kind, problem.object))
                .or_default();
            said.problems.push((problem.reason, problem.message));
        }
    }
    Ok(said)
}

/// Supported, different, refused, problems.
fn count(said: &BTreeMap<String, Said>) -> [usize; 4] {
    let of = |standing| {
        let notes = said.values().flat_map(|said| &said.notes);
        notes.filter(|note| note.standing == standing).count()
    };
    let problems = said.values().map(|said| said.problems.len()).sum();
    [
        of(Standing::Supported),
        of(Standing::Different),
        of(Standing::Refused),
        problems,
    ]
}

fn text(said: &BTreeMap<String, Said>) -> String {
    let mut text = String::new();
    for (object, said) in said {
        let _ = writeln!(text, "{object}");
        if said.notes.is_empty() && said.problems.is_empty() {
            text.push_str("  nothing to say\n");
        }
        for note in &said.notes {
            let _ = writeln!(
                text,
                "  {:9}  {}: {}",
                note.standing.word(),
                short_name(&note.name),
                shown(&note.value)
            );
            if !note.words.is_empty() {
                let _ = writeln!(text, "             {}", note.words);
            }
        }
        for (reason, message) in &said.problems {
            let _ = writeln!(text, "  problem    {message} ({reason})");
        }
        text.push('\n');
    }
    let [supported, different, refused, problems] = count(said);
    let ingresses = said
        .keys()
        .filter(|object| object.starts_with("Ingress "))
        .count();
    let _ = writeln!(
        text,
        "{ingresses} Ingresses: {supported} annotations supported, {different} different, {refused} refused; {problems} problems"
    );
    text
}

fn short_name(name: &str) -> &str {
    name.strip_prefix("nginx.ingress.kubernetes.io/")
        .unwrap_or(name)
}

fn shown(value: &str) -> String {
    let short: String = value.trim().chars().take(SHOWN_CHARS_MAX).collect();
    match short.len() < value.trim().len() {
        true => format!("{short:?}…"),
        false => format!("{short:?}"),
    }
}

fn value(said: &BTreeMap<String, Said>) -> Value {
    let note = |note: &Note| json!({"annotation": note.name, "value": note.value, "standing": note.standing.word(), "message": note.words});
    let objects = said.iter().map(|(object, said)| {
        let problems = said.problems.iter();
        let problems: Vec<Value> = problems
            .map(|(reason, message)| json!({"reason": reason, "message": message}))
            .collect();
        let notes: Vec<Value> = said.notes.iter().map(note).collect();
        json!({"object": object, "annotations": notes, "problems": problems})
    });
    let objects: Vec<Value> = objects.collect();
    let [supported, different, refused, problems] = count(said);
    json!({
        "objects": objects,
        "summary": {"supported": supported, "different": different, "refused": refused, "problems": problems},
    })
}

/// Where `path` is in this repository.
#[cfg(test)]
fn in_repository(path: &str) -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE=1` writes the report anew; read the difference.
    #[test]
    fn the_report_of_the_example_is_as_it_was() {
        let manifests =
            portolan_lab::apply::read(&in_repository("examples/ingress-nginx/manifests")).unwrap();
        let options = || Options {
            config: Some(ObjectName::new("ingress-nginx", "ingress-nginx-controller")),
            ..Options::default()
        };
        let report = text(&judge(&manifests, options()).unwrap());
        let golden = in_repository("examples/ingress-nginx/report.txt");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&golden, &report).unwrap();
        }
        assert_eq!(report, std::fs::read_to_string(golden).unwrap());
        let value = value(&judge(&manifests, options()).unwrap());
        let [supported, different, refused, problems] =
            count(&judge(&manifests, options()).unwrap());
        assert_eq!(
            value["summary"],
            json!({"supported": supported, "different": different, "refused": refused, "problems": problems})
        );
        assert!(supported > 20 && different > 5 && refused > 3 && problems > 2);
    }

    #[test]
    fn what_is_fine_says_so() {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let spec = json!({"ingressClassName": "nginx", "rules": [{"host": "a.com", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]});
        let ingress = json!({"kind": "Ingress", "metadata": {"name": "web"}, "spec": spec});
        let said = judge(&[ingress], Options::default()).unwrap();
        assert_eq!(count(&said), [0; 4]);
        assert_eq!(
            text(&said),
            "Ingress default/web\n  nothing to say\n\n1 Ingresses: 0 annotations supported, 0 different, 0 refused; 0 problems\n"
        );
    }
}
