//! Metrics under the names that ingress-nginx has, for the dashboards and alerts that people have: those that mean the same
//! here. Labels that could be as many as there are paths, hosts and methods are left out.

use portolan_dns::metrics::{buckets, family, line};
use portolan_gateway::ingress::CONTROLLER;
use portolan_gateway::tally::{BOUNDS_US, Hits, Tally};

use super::by_ingress;

/// Who says it, as ingress-nginx does: the pod by the environment that its manifests set, too.
fn controller() -> String {
    let of = |name: &str| {
        let text = std::env::var(name).unwrap_or_default();
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
        text.chars().filter(|c| is_name(*c)).collect::<String>()
    };
    let (namespace, pod) = (of("POD_NAMESPACE"), of("POD_NAME"));
    format!(
        "controller_class=\"{CONTROLLER}\",controller_namespace=\"{namespace}\",controller_pod=\"{pod}\""
    )
}

/// `is_ready` says whether there is something to serve by.
pub(super) fn write(out: &mut String, tally: &Tally, is_ready: bool) {
    let controller = controller();
    let ingresses: Vec<(String, Hits)> = by_ingress(tally)
        .into_iter()
        .map(|((namespace, ingress), hits)| {
            let labels = format!("{controller},namespace=\"{namespace}\",ingress=\"{ingress}\"");
            (labels, hits)
        })
        .collect();
    statuses(out, &ingresses);
    times(out, &ingresses);
    let name = "nginx_ingress_controller_response_size";
    family(out, name, "summary", "Bytes of the bodies of answers.");
    for (labels, hits) in &ingresses {
        line(out, &format!("{name}_sum"), labels, hits.sent);
        line(out, &format!("{name}_count"), labels, hits.total());
    }
    let name = "nginx_ingress_controller_nginx_process_connections";
    family(out, name, "gauge", "Connections of clients.");
    let labels = format!("{controller},state=\"active\"");
    line(out, name, &labels, tally.open);
    let name = "nginx_ingress_controller_nginx_process_connections_total";
    family(out, name, "counter", "Connections that were taken.");
    let labels = format!("{controller},state=\"accepted\"");
    line(out, name, &labels, tally.connections);
    let name = "nginx_ingress_controller_config_last_reload_successful";
    family(
        out,
        name,
        "gauge",
        "Whether there is something to serve by; nothing is ever reloaded.",
    );
    line(out, name, &controller, u8::from(is_ready));
}

fn statuses(out: &mut String, ingresses: &[(String, Hits)]) {
    let name = "nginx_ingress_controller_requests";
    family(out, name, "counter", "Requests by Ingress and status.");
    for (labels, hits) in ingresses {
        for (status, count) in &hits.statuses {
            line(out, name, &format!("{labels},status=\"{status}\""), count);
        }
        let others = hits
            .classes
            .iter()
            .zip(1..)
            .filter(|(count, _)| **count > 0);
        for (count, class) in others {
            line(out, name, &format!("{labels},status=\"{class}xx\""), count);
        }
    }
}

fn times(out: &mut String, ingresses: &[(String, Hits)]) {
    let name = "nginx_ingress_controller_request_duration_seconds";
    family(
        out,
        name,
        "histogram",
        "Times from the head of a request to the end of its answer.",
    );
    let bounds = BOUNDS_US.map(|us| us as f64 / 1e6);
    for (labels, hits) in ingresses.iter().filter(|(_, hits)| hits.total() > 0) {
        buckets(
            out,
            name,
            labels,
            &hits.times,
            &bounds,
            hits.sum_us as f64 / 1e6,
        );
    }
}
