//! Copies of connections: a director, a backup, and a network between them that loses and delays.

mod copies;
mod link;
mod messages;
