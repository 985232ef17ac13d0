//! Attacks that were written by reading the source of pullwatch: each must be reported.
//!
//! `tests/data/evasion/NAME.jsonl` are events as an apiserver logs them, one attack or more a file. Events of the set-up are
//! in them as well. A report is an alert at Notice or above for the audit id of the attack, by a rule that is not about the
//! audit log itself.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The attacks by file, as the last four digits of their audit ids.
const ATTACKS: &[(&str, &[&str])] = &[
    ("builtin-roles.jsonl", &["0001", "0003", "0005", "0006"]),
    (
        "credentials.jsonl",
        &[
            "0203", "0204", "0205", "0206", "0207", "0208", "0209", "0210", "0211", "0212", "0213", "0214",
            "0215", "0216", "0217", "0218", "0219", "0220", "0221", "0222", "0223", "0224", "0225", "0226",
            "0227", "0228", "0229", "0230", "0231", "0233", "0234", "0235", "0236", "0237", "0238", "0239",
            "0240", "0241", "0242", "0243", "0244", "0245", "0246", "0247", "0248", "0249", "0250", "0251",
            "0252", "0253", "0256", "0259", "0262", "0265", "0268", "0271", "0274", "0277", "0280", "0283",
            "0286", "0289", "0292", "0295", "0298", "0301", "0304", "0306", "0307", "0310", "0313", "0316",
            "0319", "0322", "0325", "0328", "0331", "0334", "0337", "0340", "0343", "0346", "0349", "0352",
            "0355", "0358", "0361", "0362", "0363", "0364", "0365", "0366", "0367", "0368", "0369", "0370",
            "0371", "0372", "0373", "0374", "0375", "0376", "0377", "0378", "0379", "0380", "0381", "0382",
            "0383", "0384", "0385", "0386", "0387", "0388", "0389", "0390", "0391", "0392", "0393", "0394",
            "0395",
        ],
    ),
    ("decoys.jsonl", &["0063"]),
    ("default-readers.jsonl", &["0047", "0050"]),
    ("dryrun-pod.jsonl", &["0016"]),
    ("dryrun-role.jsonl", &["0023"]),
    ("dryrun-secret.jsonl", &["0012"]),
    ("empty-members.jsonl", &["0056"]),
    (
        "encoded-credentials.jsonl",
        &[
            "0501", "0502", "0503", "0504", "0505", "0506", "0507", "0508", "0509", "0510", "0511", "0512",
            "0513", "0514", "0515", "0516", "0517", "0518", "0519", "0520", "0521", "0541", "0542", "0543",
        ],
    ),
    ("forget-pod.jsonl", &["0004"]),
    (
        "host-paths.jsonl",
        &[
            "0401", "0402", "0403", "0404", "0405", "0406", "0407", "0408", "0409", "0410", "0411", "0412",
            "0413", "0414", "0415", "0416", "0417", "0418", "0419", "0420", "0421", "0422", "0423", "0424",
            "0425", "0426", "0427", "0428", "0429",
        ],
    ),
    (
        "identities.jsonl",
        &[
            "9405", "9410", "9415", "9420", "9425", "9430", "9435", "9440", "9441", "9442", "9443", "9444",
            "9445", "9446", "9447", "9448", "9449", "9450", "9451", "9452", "9453", "9454", "9455", "9456",
            "9457", "9458", "9459", "9460", "9461", "9462", "9463", "9465",
        ],
    ),
    ("jsonpatch.jsonl", &["0041", "0043"]),
    (
        "nodes.jsonl",
        &["0707", "0708", "0709", "0712", "0718", "0722", "0725", "0768", "0769", "0771", "0773", "0775"],
    ),
    ("notsuccess-payload.jsonl", &["0053", "0055"]),
    ("opaque-docker.jsonl", &["0052"]),
    ("role-star.jsonl", &["0034", "0035", "0037", "0039"]),
    ("role-verbs.jsonl", &["0025"]),
    ("selector.jsonl", &["0002", "0003", "0006", "0007"]),
    (
        "siblings.jsonl",
        &[
            "0101", "0102", "0103", "0104", "0105", "0106", "0107", "0108", "0109", "0110", "0111", "0112",
            "0113", "0114", "0115", "0116", "0117", "0118", "0119", "0120", "0121", "0122", "0123", "0125",
            "0126", "0127", "0128", "0129", "0130", "0131", "0132", "0133", "0134", "0135", "0136", "0137",
            "0138", "0139", "0140", "0141", "0142", "0143", "0144", "0145", "0146", "0147",
        ],
    ),
    (
        "storage-classes.jsonl",
        &[
            "0601", "0602", "0603", "0604", "0605", "0606", "0607", "0608", "0609", "0610", "0611", "0612",
            "0613", "0614", "0615", "0616", "0617", "0618", "0619",
        ],
    ),
    ("uncovered.jsonl", &["0064", "0066", "0070"]),
    (
        "variants.jsonl",
        &[
            "9002", "9004", "9006", "9008", "9010", "9012", "9014", "9016", "9018", "9020", "9022", "9024",
            "9026", "9028", "9030", "9034", "9038", "9040", "9042", "9044", "9046", "9048", "9050", "9052",
            "9054", "9056", "9058", "9060", "9063", "9066", "9072", "9077", "9078", "9080", "9081", "9083",
            "9084", "9086", "9087", "9089", "9090", "9092", "9093", "9095", "9096", "9098", "9099", "9102",
            "9105", "9108", "9111", "9114", "9117", "9120", "9123", "9126", "9129", "9132", "9133", "9134",
            "9135", "9136", "9137", "9138", "9139", "9140", "9141", "9142", "9143", "9145", "9147", "9148",
            "9149", "9150", "9151", "9152", "9153", "9154", "9155", "9156", "9157", "9158", "9159", "9160",
            "9162", "9170", "9171", "9173", "9174", "9175", "9176", "9177", "9178", "9180", "9181", "9182",
            "9184", "9185", "9186", "9187", "9188", "9189", "9190", "9191", "9193", "9195", "9197", "9199",
            "9201", "9203", "9205", "9207", "9209", "9211", "9213", "9215", "9217", "9219", "9221", "9223",
            "9225", "9227", "9229", "9231", "9233", "9235", "9237", "9239", "9241", "9243", "9245", "9247",
            "9249", "9251", "9253", "9255", "9257", "9259", "9261", "9271", "9275", "9277", "9279", "9281",
            "9283", "9284", "9285", "9286", "9287", "9288", "9291", "9292", "9293", "9295", "9296", "9300",
            "9301", "9302", "9303", "9304", "9307", "9311", "9312", "9313", "9314", "9315", "9316", "9317",
            "9318", "9319", "9320", "9321", "9324", "9326", "9328", "9329", "9330", "9332", "9333", "9334",
            "9335", "9337", "9339", "9341", "9343", "9345", "9347", "9349", "9351", "9355", "9357", "9359",
            "9361",
        ],
    ),
    ("websocket.jsonl", &["0002"]),
    (
        "host-privileges.jsonl",
        &[
            "0701", "0702", "0703", "0704", "0705", "0706", "0707", "0708", "0709", "0710", "0711", "0712",
            "0713", "0714", "0715", "0716", "0717", "0718", "0719", "0720", "0721", "0722", "0723", "0724",
            "0725", "0726", "0727", "0728", "0729", "0730", "0731", "0732", "0733", "0734", "0735", "0741",
            "0742", "0743", "0744", "0745", "0746",
        ],
    ),
    ("impersonation.jsonl", &["0905"]),
    (
        "rights.jsonl",
        &["0801", "0802", "0803", "0804", "0809", "0810", "0813", "0814", "0818", "0821", "0822", "0823"],
    ),
    (
        "config-maps.jsonl",
        &[
            "1104", "1105", "1106", "1107", "1108", "1109", "1110", "1111", "1112", "1113", "1114", "1115",
            "1116", "1117", "1118", "1119", "1120", "1121", "1133", "1134", "1135", "1136", "1137", "1138",
            "1139", "1140", "1141", "1142", "1143", "1144", "1145", "1146", "1147", "1148", "1149", "1150",
            "1151", "1152", "1153", "1154", "1155", "1156", "1157", "1158", "1159", "1160", "1161", "1162",
            "1163", "1164", "1165", "1166", "1167", "1168", "1177", "1182", "1190", "1192", "1194", "1196",
            "1198", "1200", "1201", "1202", "1203", "1205", "1206", "1207", "1209", "1210", "1211", "1213",
            "1214", "1215", "1217", "1218", "1219", "1221", "1222", "1223", "1225", "1226", "1227", "1228",
            "1229", "1230", "1231", "1232",
        ],
    ),
    (
        "encodings.jsonl",
        &[
            "1401", "1402", "1403", "1404", "1405", "1406", "1407", "1408", "1409", "1410", "1411", "1412",
            "1413", "1414", "1415", "1416", "1417", "1418", "1419", "1420", "1421", "1422", "1423", "1424",
            "1425", "1426", "1427", "1428", "1429", "1430", "1431", "1432", "1433", "1434", "1435", "1436",
            "1437", "1438", "1439", "1440", "1441", "1442", "1443", "1444", "1445", "1446", "1447", "1448",
            "1449", "1450", "1451", "1452", "1453", "1454", "1455", "1456", "1457", "1458", "1459", "1460",
            "1461", "1462", "1463", "1464", "1465", "1466", "1467", "1468", "1469", "1470", "1471", "1472",
            "1473", "1474", "1475", "1476", "1477", "1478", "1479", "1480", "1481", "1482", "1483", "1484",
            "1485", "1486", "1487", "1488", "1489", "1490", "1491", "1492", "1493", "1494", "1495", "1496",
            "1497", "1498", "1499", "1500", "1501", "1502", "1503", "1504", "1505", "1506", "1507", "1508",
            "1509", "1510", "1511", "1512", "1513", "1514", "1515", "1516", "1517", "1520", "1521", "1522",
            "1525", "1526", "1527", "1530", "1531", "1532", "1535", "1536", "1537",
        ],
    ),
    (
        "second-exposures.jsonl",
        &[
            "1604", "1605", "1606", "1608", "1609", "1611", "1612", "1614", "1615", "1617", "1618", "1619",
            "1620", "1621", "1622", "1623", "1624", "1625", "1626", "1627", "1628", "1629", "1630", "1631",
            "1635",
        ],
    ),
    (
        "copies.jsonl",
        &[
            "1001", "1002", "1003", "1004", "1005", "1006", "1007", "1008", "1009", "1010", "1011", "1012",
            "1013", "1014", "1020", "1021", "1023", "1025", "1026", "1028", "1029", "1030", "1031", "1032",
            "1033", "1034", "1035", "1039",
        ],
    ),
    (
        "indirect-rights.jsonl",
        &[
            "1702", "1704", "1706", "1708", "1710", "1712", "1714", "1716", "1718", "1720", "1722", "1724",
            "1726", "1739", "1740", "1745", "1746", "1747", "1748", "1752", "1761", "1762", "1763",
        ],
    ),
    (
        "further-ways.jsonl",
        &["1801", "1802", "1803", "1804", "1805", "1806", "1807", "1808", "1815", "1817", "1820", "1822"],
    ),
    (
        "custom-resources.jsonl",
        &[
            "1903", "1904", "1905", "1906", "1907", "1908", "1909", "1910", "1911", "1912", "1913", "1914",
            "1915", "1916", "1917", "1918", "1919", "1920",
        ],
    ),
    (
        "failed-patches.jsonl",
        &[
            "2003", "2004", "2005", "2006", "2007", "2008", "2009", "2010", "2011", "2012", "2013", "2014",
            "2015", "2016", "2017", "2018",
        ],
    ),
    (
        "subresources.jsonl",
        &[
            "2101", "2102", "2103", "2104", "2105", "2106", "2107", "2108", "2109", "2111", "2112", "2113",
            "2114", "2115", "2116",
        ],
    ),
    ("absence.jsonl", &["2204", "2208"]),
];

/// The requests beside attacks that are not to be reported, in the same form.
const QUIET: &[(&str, &[&str])] = &[
    (
        "host-privileges.jsonl",
        &[
            "0747", "0748", "0749", "0750", "0751", "0752", "0753", "0754", "0755", "0756", "0757", "0758",
            "0759", "0760", "0761", "0762", "0763", "0764", "0765", "0766", "0767", "0768", "0769", "0770",
            "0771", "0772", "0773",
        ],
    ),
    (
        "config-maps.jsonl",
        &[
            "1122", "1123", "1124", "1125", "1126", "1127", "1128", "1129", "1130", "1131", "1132", "1169",
            "1170", "1171", "1172", "1173", "1174", "1175", "1179", "1184", "1186", "1188", "1233", "1234",
            "1235", "1236", "1237", "1238", "1239", "1240", "1241", "1242", "1243", "1244", "1245",
        ],
    ),
    (
        "encodings.jsonl",
        &[
            "1518", "1519", "1523", "1524", "1528", "1529", "1533", "1534", "1538", "1539", "1540", "1541",
            "1542", "1543", "1544", "1545", "1546", "1547", "1548", "1549", "1550", "1551", "1552", "1553",
            "1554", "1555", "1556", "1557", "1558", "1559", "1560", "1561", "1562", "1563", "1564", "1565",
            "1566", "1567", "1568", "1569", "1570", "1571", "1572", "1573", "1574", "1575", "1576", "1577",
        ],
    ),
    ("second-exposures.jsonl", &["1607", "1610", "1613", "1616", "1632", "1633"]),
    ("impersonation.jsonl", &["0906", "0907", "0908", "0909"]),
    (
        // Updates of credentials by their operator are stored as Notice (0825); tests/rules/credentials.yaml has them.
        "rights.jsonl",
        &["0805", "0806", "0807", "0808", "0811", "0812", "0815", "0816", "0819", "0820", "0824"],
    ),
    (
        "copies.jsonl",
        &["1015", "1016", "1017", "1018", "1019", "1022", "1024", "1027", "1036", "1037", "1038", "1040"],
    ),
    (
        "indirect-rights.jsonl",
        &[
            "1727", "1728", "1729", "1730", "1731", "1732", "1733", "1734", "1735", "1736", "1737", "1738",
            "1741", "1742", "1744", "1749", "1750", "1751", "1753", "1755", "1758", "1764", "1765",
        ],
    ),
    ("further-ways.jsonl", &["1809", "1810", "1811", "1812", "1813", "1814", "1816", "1818", "1819", "1821"]),
    (
        "custom-resources.jsonl",
        &["1921", "1922", "1923", "1924", "1925", "1926", "1927", "1928", "1929", "1930", "1931"],
    ),
    (
        "failed-patches.jsonl",
        &["2019", "2020", "2021", "2022", "2023", "2024", "2025", "2026", "2027", "2028", "2029"],
    ),
    ("subresources.jsonl", &["2117", "2118", "2119", "2120", "2121"]),
    ("absence.jsonl", &["2212"]),
];

/// The alerts of a file of attacks with the shipped rules.
fn scan(file: &str) -> Vec<serde_json::Value> {
    scan_path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/evasion").join(file))
}

fn scan_path(path: &Path) -> Vec<serde_json::Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_pullwatch"))
        .args(["scan", "--format", "json"])
        .arg(path)
        .output()
        .unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// The last four digits of the audit ids that were reported.
fn reported(alerts: &[serde_json::Value]) -> BTreeSet<String> {
    let is_report = |alert: &&serde_json::Value| {
        let is_urgent = matches!(
            alert["priority"].as_str().unwrap(),
            "Emergency" | "Alert" | "Critical" | "Error" | "Warning" | "Notice"
        );
        is_urgent && !alert["rule"].as_str().unwrap().to_lowercase().contains("audit log")
    };
    alerts
        .iter()
        .filter(is_report)
        .map(|alert| {
            let id = alert["event"]["auditID"].as_str().unwrap();
            id[id.len() - 4..].to_owned()
        })
        .collect()
}

#[test]
fn every_attack_is_reported() {
    let mut wrong = Vec::new();
    for (file, ids) in ATTACKS {
        let reported = reported(&scan(file));
        for id in *ids {
            if !reported.contains(*id) {
                wrong.push(format!("{file}: {id}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_usual_beside_attacks_is_not_reported() {
    let mut wrong = Vec::new();
    for (file, ids) in QUIET {
        let alerts = scan(file);
        let reported = reported(&alerts);
        wrong.extend(ids.iter().filter(|id| reported.contains(**id)).map(|id| format!("{file}: {id}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_of_attacks_is_tested() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/evasion");
    let files: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    assert_eq!(files, ATTACKS.iter().map(|(file, _)| (*file).to_owned()).collect());
}

#[test]
fn hosts_of_decoys_do_not_hide_the_hosts_of_a_credential() {
    let alerts = scan("decoys.jsonl");
    let listed = alerts.iter().find(|alert| alert["rule"] == "Secrets Listed").unwrap();
    let hosts = listed["registry"]["hosts"].as_array().unwrap();
    assert!(hosts.contains(&"crown-jewel.example".into()));
    assert!(listed["output"].as_str().unwrap().contains("crown-jewel.example"));
    assert_eq!(listed["registry"]["secrets"].as_array().unwrap().len(), 2);
}

/// An event about an object of a namespace; the body is the request object.
fn event(
    number: usize,
    verb: &str,
    user: &str,
    resource: &str,
    namespace: &str,
    name: &str,
    body: &str,
) -> String {
    let level = if body.is_empty() { "Metadata" } else { "Request" };
    let body = if body.is_empty() { String::new() } else { format!(",\"requestObject\":{body}") };
    format!(
        r#"{{"kind":"Event","level":"{level}","auditID":"{number:04}","stage":"ResponseComplete","requestURI":"/x","verb":"{verb}","user":{{"username":"{user}"}},"objectRef":{{"resource":"{resource}","namespace":"{namespace}","name":"{name}"}},"responseStatus":{{"code":200}}{body}}}"#
    ) + "\n"
}

/// A credential that is known by type, a flood, and a read of the credential at level Metadata.
fn theft_after(flood: impl Iterator<Item = String>) -> Vec<serde_json::Value> {
    let secret = r#"{"type":"kubernetes.io/dockerconfigjson"}"#;
    let mut log = event(1, "create", "system:apiserver", "secrets", "production", "prod-images", secret);
    log.extend(flood);
    log.push_str(&event(2, "get", "mallory", "secrets", "production", "prod-images", ""));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    std::fs::write(&path, log).unwrap();
    scan_path(&path)
}

#[test]
fn a_flood_does_not_evict_a_known_credential() {
    let references = |pod: usize| {
        let names: Vec<String> = (0..64).map(|number| format!("{{\"name\":\"j{pod}-{number}\"}}")).collect();
        format!("{{\"spec\":{{\"imagePullSecrets\":[{}]}}}}", names.join(","))
    };
    let pods = |namespace: fn(usize) -> String| {
        move |pod: usize| {
            event(3, "create", "mallory", "pods", &namespace(pod), &format!("p{pod}"), &references(pod))
        }
    };
    for flood in [pods(|_| "mine".to_owned()), pods(|pod| format!("mine{pod}"))] {
        let alerts = theft_after((0..900).map(flood));
        assert!(reported(&alerts).contains("0002"));
    }
    // Nor do secrets of the same type, of which 50,000 are tracked.
    let item = |number: usize| {
        format!(r#"{{"metadata":{{"name":"x{number}"}},"type":"kubernetes.io/dockerconfigjson"}}"#)
    };
    let items: Vec<String> = (0..51_000).map(item).collect();
    let list = format!(
        r#"{{"kind":"Event","level":"RequestResponse","auditID":"0003","stage":"ResponseComplete","requestURI":"/x","verb":"list","user":{{"username":"mallory"}},"objectRef":{{"resource":"secrets","namespace":"mine"}},"responseStatus":{{"code":200}},"responseObject":{{"kind":"SecretList","items":[{}]}}}}"#,
        items.join(",")
    );
    let alerts = theft_after(std::iter::once(list + "\n"));
    assert!(reported(&alerts).contains("0002"));
    let evicted = alerts.iter().filter(|alert| alert["rule"] == "Known Registry Credentials Evicted").count();
    assert_eq!(evicted, 1);
}
