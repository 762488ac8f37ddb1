//! A scratch folder of this machine, where no engine answers.
