//! The garbage collector.
use crate::api::Api;
use std::sync::Arc;
pub(crate) async fn run(_api: Arc<Api>) {}
