//! A thread that checks the endpoints of those routes that want it, and tells all others who is sick.
//!
//! ```text
//!   Live ─▶ who is to be checked ─▶ a request each, in turns ─▶ check::Health ─▶ Sick, swapped as a whole ─▶ threads
//! ```
//!
//! Each connection is for one check: whether an endpoint takes connections is a part of the question.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request};
use portolan_model::PortKey;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Live;
use super::body::Upload;
use super::upstream::{Place, Tls, question};
use crate::check::{Check, Health};
use crate::endpoint_tls::EndpointTls;
use crate::route::Destination;
use crate::traffic::Traffic;

/// Endpoints that are checked, of all routes; further ones count as well. At every 5 s, these are 2 000 requests a second.
const CHECKED_MAX: usize = 10_000;

/// Checks at one time; further ones wait, so that many endpoints that hang do not take all sockets.
const AT_ONCE_MAX: usize = 256;

/// How often is looked whose turn it is, and whether there is something else to serve by.
const LOOK: Duration = Duration::from_millis(50);

/// The same while nobody is to be checked.
const LOOK_IDLE: Duration = Duration::from_secs(1);

/// Endpoints that are sick, by Service port and check.
pub(super) type Sick = HashMap<PortKey, Vec<(Check, Vec<SocketAddr>)>>;

/// Who is sick by now.
#[derive(Debug, Default)]
pub(super) struct Checks {
    sick: ArcSwap<Sick>,
}

impl Checks {
    /// Those of a Service port whom this check has found sick.
    pub(super) fn sick(&self, key: &PortKey, check: &Check) -> Vec<SocketAddr> {
        let sick = self.sick.load();
        let of_port = sick.get(key).into_iter().flatten();
        let mut of_check = of_port.filter(|(of, _)| of == check);
        of_check
            .next()
            .map(|(_, all)| all.clone())
            .unwrap_or_default()
    }

    /// How many are sick.
    pub(super) fn count(&self) -> usize {
        let sick = self.sick.load();
        sick.values().flatten().map(|(_, all)| all.len()).sum()
    }
}

/// What is asked of whom, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    key: PortKey,
    check: Check,
    place: Place,
}

/// How an endpoint is, and when it is asked again.
#[derive(Clone, Debug)]
struct Patient {
    tls: Option<Arc<EndpointTls>>,
    health: Health,
    next: Instant,
    is_asked: bool,
}

/// Checks until it is told to stop.
pub(super) fn run(
    live: &ArcSwap<Live>,
    checks: &Checks,
    tls: &Tls,
    stop: &CancellationToken,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            () = turns(live, checks, tls) => {}
            () = stop.cancelled() => {}
        }
    });
    Ok(())
}

async fn turns(live: &ArcSwap<Live>, checks: &Checks, tls: &Tls) {
    let room = Arc::new(Semaphore::new(AT_ONCE_MAX));
    let mut patients: BTreeMap<Asked, Patient> = BTreeMap::new();
    let mut known: Option<Arc<Live>> = None;
    let mut asking = JoinSet::new();
    loop {
        let answer = tokio::select! {
            Some(answer) = asking.join_next() => answer.ok(),
            () = sleep(if patients.is_empty() { LOOK_IDLE } else { LOOK }) => None,
        };
        let mut has_changed = false;
        if let Some((asked, is_good)) = answer {
            has_changed |= take_in(&mut patients, &asked, is_good);
        }
        let now_live = live.load_full();
        if !known
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, &now_live))
        {
            follow(&mut patients, &now_live);
            has_changed = true;
            known = Some(now_live);
        }
        if has_changed {
            checks.sick.store(Arc::new(sick(&patients)));
        }
        let now = Instant::now();
        for (asked, patient) in &mut patients {
            if patient.is_asked || patient.next > now {
                continue;
            }
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                break;
            };
            patient.is_asked = true;
            let (asked, own, tls) = (asked.clone(), patient.tls.clone(), tls.clone());
            asking.spawn_local(async move {
                let is_good = ask(&asked, own.as_deref(), &tls).await;
                drop(place);
                (asked, is_good)
            });
        }
    }
}

fn take_in(patients: &mut BTreeMap<Asked, Patient>, asked: &Asked, is_good: bool) -> bool {
    // It may have gone meanwhile.
    let Some(patient) = patients.get_mut(asked) else {
        return false;
    };
    patient.is_asked = false;
    patient.next = Instant::now() + asked.check.interval;
    let changes = patient.health.heard(is_good, &asked.check);
    if changes {
        let (endpoint, port) = (asked.place.address, &asked.key);
        match patient.health.is_sick {
            true => {
                tracing::warn!(%endpoint, %port, path = asked.check.path, "an endpoint does not pass its checks")
            }
            false => {
                tracing::info!(%endpoint, %port, path = asked.check.path, "an endpoint passes its checks again")
            }
        }
    }
    changes
}

/// Checks whoever is there now, and forgets all others. New ones begin at times of their own, so that not all endpoints
/// are asked at once.
fn follow(patients: &mut BTreeMap<Asked, Patient>, live: &Live) {
    let mut wanted = BTreeMap::new();
    for (key, traffic) in checked(live) {
        let Some((check, roster)) = traffic.check.as_ref().zip(live.endpoints.get(&key)) else {
            continue;
        };
        for endpoint in roster.choices.addresses.iter() {
            if wanted.len() >= CHECKED_MAX {
                break;
            }
            let asked = Asked {
                key: key.clone(),
                check: check.clone(),
                place: Place::of(*endpoint, &traffic, &key),
            };
            if wanted.contains_key(&asked) {
                continue;
            }
            let known = patients.remove(&asked);
            let begins = || Patient {
                tls: traffic.tls.clone(),
                health: Health::default(),
                next: Instant::now() + check.interval.mul_f64(fastrand::f64()),
                is_asked: false,
            };
            wanted.insert(asked, known.unwrap_or_else(begins));
        }
    }
    *patients = wanted;
}

/// The Service ports of routes that want checks.
fn checked(live: &Live) -> Vec<(PortKey, Arc<Traffic>)> {
    let rows = live.table.rows();
    let wanting = rows.iter().filter(|row| row.target.traffic.check.is_some());
    let pairs = wanting.flat_map(|row| {
        let backends = row.target.backends.iter().map(|backend| &backend.to);
        let canary = row.target.policy.canary.iter().map(|canary| &canary.to);
        backends.chain(canary).filter_map(|to| match to {
            Destination::Port(key) => Some((key.clone(), Arc::clone(&row.target.traffic))),
            Destination::Broken(_) => None,
        })
    });
    pairs.collect()
}

fn sick(patients: &BTreeMap<Asked, Patient>) -> Sick {
    let mut all = Sick::new();
    for (asked, _) in patients
        .iter()
        .filter(|(_, patient)| patient.health.is_sick)
    {
        let of_port = all.entry(asked.key.clone()).or_default();
        match of_port.iter_mut().find(|(check, _)| *check == asked.check) {
            Some((_, endpoints)) => endpoints.push(asked.place.address),
            None => of_port.push((asked.check.clone(), vec![asked.place.address])),
        }
    }
    all
}

/// Whether an endpoint answers in time, with a status from 200 to 399.
async fn ask(asked: &Asked, own: Option<&EndpointTls>, tls: &Tls) -> bool {
    let mut request = Request::new(Upload::empty());
    let Ok(uri) = asked.check.path.parse() else {
        return false;
    };
    *request.uri_mut() = uri;
    let host = asked.check.host.clone();
    let host = host.unwrap_or_else(|| asked.place.address.to_string());
    if let Ok(host) = HeaderValue::from_str(&host) {
        request.headers_mut().insert(HOST, host);
    }
    let name = HeaderValue::from_static("portolan-health");
    request.headers_mut().insert(USER_AGENT, name);
    let asking = question(&asked.place, own, tls, request);
    match timeout(asked.check.timeout, asking).await {
        Ok(Ok(status)) => status.is_success() || status.is_redirection(),
        _ => false,
    }
}
