//! The writer: an endpoint for another one, a route for another one, in turns and at a pace; each is waited for.

use std::time::{Duration, Instant};

use portolan_testkit::program::{Api, PATIENCE, request};
use portolan_testkit::wait;

use crate::Result;
use crate::clients::status;
use crate::endpoints::Endpoints;
use crate::site::{self, HOSTS, SERVICES};

/// What was changed, and how long each change took from the moment before it was written.
pub struct Changes {
    pub took: Duration,
    pub endpoints: Vec<Duration>,
    pub routes: Vec<Duration>,
}

/// Makes so many changes, evenly over a time.
pub fn run(api: &Api, endpoints: &Endpoints, time: Duration, count: u32) -> Result<Changes> {
    let begun = Instant::now();
    let mut changes = Changes {
        took: Duration::ZERO,
        endpoints: Vec::new(),
        routes: Vec::new(),
    };
    for number in 0..count {
        let (round, is_route) = (number / 2, number % 2 == 1);
        match is_route {
            true => changes.routes.push(route(api, round)?),
            false => changes.endpoints.push(endpoint(api, endpoints, round)?),
        }
        let next = time * (number + 1) / count;
        // The pace: changes are spread over the whole time.
        wait::until(next.saturating_sub(begun.elapsed()), || false);
    }
    changes.took = begun.elapsed();
    Ok(changes)
}

/// The oldest endpoint of a Service goes, and a new one comes: until the new one has a request.
fn endpoint(api: &Api, endpoints: &Endpoints, round: u32) -> Result<Duration> {
    let (service, first) = (round % SERVICES, round / SERVICES + 1);
    let (path, patch) = site::endpoints(service, first);
    let begun = Instant::now();
    api.runtime
        .block_on(request(&api.client, "PATCH", path, patch))?;
    endpoints.remove(site::endpoint(service, first - 1));
    let new = site::endpoint(service, first + site::ENDPOINTS - 1);
    match wait::until(PATIENCE, || endpoints.is_asked(new)) {
        true => Ok(begun.elapsed()),
        false => Err(format!("change {round}: nobody asks {new}")),
    }
}

/// A route of a host goes, and a new one comes: until the new one is served, and the old one is not.
fn route(api: &Api, round: u32) -> Result<Duration> {
    let number = round % HOSTS;
    let host = site::host(number);
    let (path, patch) = site::rules(number, Some(round));
    let begun = Instant::now();
    api.runtime
        .block_on(request(&api.client, "PATCH", path, patch))?;
    let (new, _) = site::changed(round);
    let old = round
        .checked_sub(HOSTS)
        .map(|before| site::changed(before).0);
    let is_live = || {
        let has_new = status(&host, &new) == Some(200);
        has_new
            && old
                .as_ref()
                .is_none_or(|old| status(&host, old) == Some(404))
    };
    match wait::until(PATIENCE, is_live) {
        true => Ok(begun.elapsed()),
        false => Err(format!("change {round}: {host}{new} is not what is served")),
    }
}
