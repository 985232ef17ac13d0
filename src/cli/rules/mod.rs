//! stub
#[derive(Debug, clap::Subcommand)]
pub enum Rules { Check{paths: Vec<std::path::PathBuf>} }
impl Rules { pub fn run(self) -> anyhow::Result<std::process::ExitCode> { match self { Rules::Check{paths} => { 
  let files = super::rulefiles::read(&paths)?; let l = crate::rules::load(&files,&Default::default()); super::rulefiles::show(&crate::rules::render(&l.diagnostics,&files,true)); Ok(if l.has_errors() {1.into()} else {0.into()}) } } } }
