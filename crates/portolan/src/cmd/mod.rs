//! One module for each command.

pub mod apiserver;
pub mod ask;
pub mod dns;
pub mod echo;
pub mod env;
pub mod gateway;
pub mod lab;
pub mod logging;
pub mod proxy;
pub mod relay;
pub mod websocket;
