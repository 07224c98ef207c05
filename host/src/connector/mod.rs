//! The contract between the host and its connectors: what reads records from the outside world and writes them there.
//!
//! It needs the vocabulary of the model and a file system, and nothing of jobs, graphs or the dataflow. So a job graph can
//! hold what it describes, and the dataflow can run it, without either knowing which connectors there are.
//!
//! The checked settings of a source or sink are a trait object that opens what they describe:
//!
//! - [`source`]: settings, splits, positions, readers.
//! - [`sink`]: settings, writers, and the committers of what they have prepared.

pub mod source;
pub mod sink;
