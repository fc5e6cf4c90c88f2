//! Everything at work: what answers where, a file that changes, and the end.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use portolan_dns::chain::{Chain, Names};
use portolan_dns::corefile::{Block, Config, Listen, Zone};
use portolan_dns::metrics::Tally;
use portolan_dns::server::{Bound, Limits, Server};
use portolan_dns::site::{Door, Site};
use portolan_dns::wire::Name;
use portolan_dns::zone::External;
use portolan_model::names::Label;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::cluster::Cluster;
use super::file::{self, Found};
use super::metrics::{self, Programming};
use super::nearby::{Attendance, Keeper};
use super::plan::{Behind, Place, Plan, plan};
use super::{Serve, http, listen};

/// How often blocks do what has to be done now and then.
const TICK: Duration = Duration::from_secs(1);
/// How long queries that are on their way may take at the end: longer than any of them has.
const GRACE: Duration = Duration::from_secs(6);
/// Between two looks whether a cluster has been listed.
const LOOK: Duration = Duration::from_millis(20);

/// What pages tell, and what outlives a configuration.
#[derive(Default)]
pub(super) struct State {
    now: Mutex<Now>,
    tallies: Mutex<BTreeMap<(String, String), Arc<Tally>>>,
    stopping: AtomicBool,
    was_ready: AtomicBool,
    /// Configurations that could not be used.
    pub reloads_failed: AtomicU64,
    /// How long names take from the cluster to here.
    pub programming: Arc<Programming>,
}

/// The present configuration.
#[derive(Default, Clone)]
pub(super) struct Now {
    pub chains: Vec<Arc<Chain>>,
    pub clusters: Vec<Arc<Cluster>>,
    pub config: Option<Arc<Config>>,
    pub text: String,
}

impl State {
    pub(super) fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts go on when the file changes.
    fn tally(&self, server: &str, zone: &str) -> Arc<Tally> {
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (server.to_string(), zone.to_string());
        let new = || Arc::new(Tally::new(server, zone));
        Arc::clone(tallies.entry(key).or_insert_with(new))
    }

    /// The plugins that are not ready; ready once is ready for ever, unless the file wants it watched.
    pub(super) fn unready(&self) -> Option<String> {
        let now = self.now();
        if self.stopping.load(Ordering::Relaxed) || now.config.is_none() {
            return Some("stopping".to_string());
        }
        let ready = now
            .config
            .iter()
            .flat_map(|config| &config.blocks)
            .filter_map(|block| block.plugins.ready);
        let watched = ready.into_iter().any(|ready| ready.continuously);
        if self.was_ready.load(Ordering::Relaxed) && !watched {
            return None;
        }
        let listed = now.clusters.iter().all(|cluster| cluster.is_listed());
        self.was_ready.fetch_or(listed, Ordering::Relaxed);
        (!listed).then(|| "kubernetes".to_string())
    }

    pub(super) fn metrics(&self) -> String {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let tallies: Vec<&Tally> = tallies.values().map(Arc::as_ref).collect();
        metrics::text(&tallies, &self.now().clone(), self)
    }
}

/// What listens, and what answers there.
struct Running {
    args: Serve,
    state: Arc<State>,
    open: BTreeMap<Place, (Arc<Door>, Server)>,
    pages: BTreeMap<Listen, JoinSet<()>>,
    plan: Plan,
    attendance: Option<Attendance>,
}

/// Serves until the process is told to stop.
pub(super) async fn serve(
    args: Serve,
    found: Found,
    plan: Plan,
    pages: BTreeMap<Listen, TcpListener>,
    keeper: Option<Keeper>,
) -> anyhow::Result<ExitCode> {
    let mut running = Running {
        args,
        state: Arc::default(),
        open: BTreeMap::new(),
        pages: BTreeMap::new(),
        plan: Plan::default(),
        attendance: None,
    };
    running.use_pages(&plan, pages);
    running.begin(found, plan).await?;
    let attend = |keeper: Keeper| keeper.attend(Arc::clone(&running.state));
    running.attendance = keeper.map(attend).transpose()?;
    running.until_told().await
}

impl Running {
    /// From now on this configuration counts. What can fail comes first. A socket for queries is opened when there are
    /// names to answer with: until then another process at the same address gets all of them, or a client is refused at
    /// once, and nobody's query lies here waiting.
    async fn begin(&mut self, found: Found, plan: Plan) -> anyhow::Result<()> {
        let config = Arc::new(found.config);
        let clusters = self.clusters(&config, &plan).await?;
        let chains = config
            .blocks
            .iter()
            .map(|block| chain(block, &clusters, &plan));
        let chains = chains.collect::<anyhow::Result<Vec<_>>>()?;
        listed(&clusters).await;
        let mut sockets = self.open_new(&plan)?;
        for (place, behind) in &plan.places {
            let site = self.site(*place, behind, &chains)?;
            if let Some((door, _)) = self.open.get(place) {
                door.swap(site);
            } else if let Some(bound) = sockets.remove(place) {
                let door = Arc::new(Door::new(site));
                let runtime = tokio::runtime::Handle::current();
                let server = bound.serve(Arc::clone(&door), Limits::default(), &runtime)?;
                tracing::info!(
                    "names are answered at {} ({})",
                    place.address,
                    place.scheme.name()
                );
                self.open.insert(*place, (door, server));
            }
        }
        let gone: Vec<Place> = self
            .open
            .keys()
            .filter(|place| !plan.places.contains_key(place))
            .copied()
            .collect();
        for place in gone {
            if let Some((_, server)) = self.open.remove(&place) {
                tracing::info!("names are not answered at {} any more", place.address);
                server.stop(GRACE).await;
            }
        }
        self.plan = plan;
        *self.state.now() = Now {
            chains,
            clusters,
            config: Some(config),
            text: found.text,
        };
        Ok(())
    }

    /// Opens all sockets that are not open yet, or none.
    fn open_new(&self, plan: &Plan) -> anyhow::Result<BTreeMap<Place, Bound>> {
        let mut sockets = BTreeMap::new();
        for (place, behind) in &plan.places {
            if !self.open.contains_key(place)
                && let Some(bound) = listen::open(*place, behind)?
            {
                sockets.insert(*place, bound);
            }
        }
        Ok(sockets)
    }

    fn use_pages(&mut self, plan: &Plan, listeners: BTreeMap<Listen, TcpListener>) {
        self.pages
            .retain(|listen, _| plan.pages.contains_key(listen));
        for (listen, listener) in listeners {
            let roles = plan.pages.get(&listen).copied().unwrap_or_default();
            let mut task = JoinSet::new();
            task.spawn(http::serve(listener, roles, Arc::clone(&self.state)));
            self.pages.insert(listen, task);
        }
    }

    /// One for each `kubernetes` that differs; those that have not changed go on.
    async fn clusters(&self, config: &Config, plan: &Plan) -> anyhow::Result<Vec<Arc<Cluster>>> {
        let before = self.state.now().clusters.clone();
        let mut clusters: Vec<Arc<Cluster>> = Vec::new();
        for options in config
            .blocks
            .iter()
            .filter_map(|block| block.plugins.kubernetes.as_ref())
        {
            let same =
                |cluster: &&Arc<Cluster>| cluster.options == *options && cluster.own == plan.own;
            if clusters.iter().any(|cluster| same(&cluster)) {
                continue;
            }
            if let Some(old) = before.iter().find(same) {
                clusters.push(Arc::clone(old));
                continue;
            }
            let programming = Arc::clone(&self.state.programming);
            let started = Cluster::start(
                options,
                &plan.own,
                self.args.kubeconfig.clone(),
                programming,
            )
            .await?;
            clusters.push(Arc::new(started));
        }
        Ok(clusters)
    }

    fn site(&self, place: Place, behind: &Behind, chains: &[Arc<Chain>]) -> anyhow::Result<Site> {
        let server = place.server();
        let mut zones = Vec::new();
        for (zone, block) in &behind.zones {
            let name = Name::parse(zone).with_context(|| format!("{zone} is no name"))?;
            zones.push((
                name,
                Arc::clone(&chains[*block]),
                self.state.tally(&server, zone),
            ));
        }
        Ok(Site::new(zones, self.state.tally(&server, "dropped")))
    }

    async fn until_told(mut self) -> anyhow::Result<ExitCode> {
        let mut terminated = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut asked = signal(SignalKind::user_defined1())?;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = self.next_look();
        loop {
            tokio::select! {
                _ = terminated.recv() => break,
                _ = interrupted.recv() => break,
                _ = asked.recv() => self.reload().await,
                error = lost(&mut self.attendance) => return Err(error),
                _ = ticks.tick() => {
                    let now = Instant::now();
                    self.open.values().for_each(|(door, _)| door.site().tick(now));
                    if look.is_some_and(|look| now >= look) {
                        self.reload().await;
                        look = self.next_look();
                    }
                }
            }
        }
        self.stop().await;
        Ok(ExitCode::SUCCESS)
    }

    /// When the file is looked at again: the shortest interval of any block.
    fn next_look(&self) -> Option<Instant> {
        let now = self.state.now();
        let blocks = now.config.iter().flat_map(|config| &config.blocks);
        let shortest = blocks
            .filter_map(|block| block.plugins.reload)
            .min_by_key(|reload| reload.interval)?;
        let jitter = shortest.jitter.mul_f64(fastrand::f64());
        Some(Instant::now() + shortest.interval.saturating_sub(shortest.jitter / 2) + jitter)
    }

    /// A file that cannot be used changes nothing.
    async fn reload(&mut self) {
        if let Err(error) = self.try_reload().await {
            self.state.reloads_failed.fetch_add(1, Ordering::Relaxed);
            tracing::error!("the old configuration stays: {error:#}");
        }
    }

    async fn try_reload(&mut self) -> anyhow::Result<()> {
        let found = file::read(&self.args.conf, self.args.port)?;
        if found.text == self.state.now().text {
            return Ok(());
        }
        let new = plan(&found.config, &self.args.node_local)?;
        for (place, behind) in &new.places {
            let old = self.plan.places.get(place);
            if old.is_some_and(|old| old.tls != behind.tls) {
                bail!(
                    "the certificate of {} is read when the process starts; restart it",
                    place.address
                );
            }
        }
        let mut pages = BTreeMap::new();
        for (listen, roles) in &new.pages {
            match self.plan.pages.get(listen) {
                None => drop(pages.insert(*listen, http::open(*listen)?)),
                Some(old) if old == roles => {}
                Some(_) => {
                    bail!("what stands at {listen} for HTTP cannot change while the process runs")
                }
            }
        }
        self.begin(found, new.clone()).await?;
        self.use_pages(&new, pages);
        tracing::info!("{} has changed and is used", self.args.conf.display());
        Ok(())
    }

    /// Lameduck: not ready any more, but still answering, until everybody has noticed.
    async fn stop(self) {
        self.state.stopping.store(true, Ordering::Relaxed);
        let _addresses = match self.attendance {
            Some(attendance) => attendance.give_way().await,
            None => None,
        };
        let config = self.state.now().config.clone();
        let blocks = config.iter().flat_map(|config| &config.blocks);
        let lameduck = blocks
            .filter_map(|block| block.plugins.health)
            .map(|health| health.lameduck)
            .max();
        let lameduck = lameduck.unwrap_or_default();
        if !lameduck.is_zero() {
            tracing::info!("going into lameduck mode for {lameduck:?}");
            tokio::time::sleep(lameduck).await;
        }
        for (_, (_, server)) in self.open {
            server.stop(GRACE).await;
        }
    }
}

/// Comes back when the keeper of the node's addresses is lost, which is never without one.
async fn lost(attendance: &mut Option<Attendance>) -> anyhow::Error {
    match attendance {
        Some(attendance) => attendance.lost().await,
        None => std::future::pending().await,
    }
}

fn chain(block: &Block, clusters: &[Arc<Cluster>], plan: &Plan) -> anyhow::Result<Arc<Chain>> {
    let plugins = &block.plugins;
    let names = match (&plugins.kubernetes, &plugins.external) {
        (None, None) => None,
        (None, Some(_)) => bail!(
            "{}: k8s_external needs kubernetes in the same server block",
            block.place
        ),
        (Some(options), external) => {
            let cluster = clusters.iter().find(|cluster| cluster.options == *options);
            let cluster = cluster.context("invariant: every kubernetes has its cluster")?;
            let external = external.as_ref().map(|external| {
                let zones = names(&external.zones)?;
                let apex = Label::new(&external.apex).with_context(|| {
                    format!("{}: {:?} is no label (apex)", block.place, external.apex)
                })?;
                let made = External::new(
                    zones,
                    apex,
                    external.headless,
                    external.ttl,
                    plan.own.clone(),
                );
                anyhow::Ok(Arc::new(made))
            });
            Some(Names {
                live: Arc::clone(&cluster.live),
                zones: options.zones.clone(),
                external: external.transpose()?,
            })
        }
    };
    Ok(Arc::new(Chain::new(block, names)?))
}

fn names(zones: &[Zone]) -> anyhow::Result<Vec<Name>> {
    let parsed = zones
        .iter()
        .map(|zone| Name::parse(zone.as_str()).context("a zone is no name"));
    parsed.collect()
}

/// Waits until everything has been listed once, as long as the file wants that: right answers come first, and then any.
async fn listed(clusters: &[Arc<Cluster>]) {
    for cluster in clusters {
        let wait = async {
            while !cluster.is_listed() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let time = cluster.options.startup_timeout;
        if tokio::time::timeout(time, wait).await.is_err() {
            tracing::warn!(
                "the API has not listed everything within {time:?}; names that are not known get SERVFAIL until then"
            );
        }
    }
}
