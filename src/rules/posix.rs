//! stub
/// stub
pub fn compile(pattern: &str) -> Result<regex::bytes::Regex, String> {
    regex::bytes::RegexBuilder::new(&format!(r"\A(?:{pattern})\z")).multi_line(true).build().map_err(|e| e.to_string())
}
