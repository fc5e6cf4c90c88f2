//! A whole server on the loopback, driven by the real kubectl.

mod cluster;
mod kubectl;
mod watch;
