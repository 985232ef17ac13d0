// Checks the LogQL of dashboards and documentation with the grammar that Grafana uses: no Loki is needed.
//
//   node tests/receivers/logql.mjs MODULES      MODULES: a node_modules directory with @grafana/lezer-logql
//
// Which labels and metadata the queries may use is checked by tests/receivers/logql.rs.
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const { parser } = createRequire(resolve(process.argv[2], 'none.js'))('@grafana/lezer-logql');

const queries = [];
function collect(value, file) {
  if (value === null || typeof value !== 'object') return;
  if (value.datasource?.type === 'loki' && typeof value.expr === 'string') queries.push([file, value.expr]);
  for (const inner of Object.values(value)) collect(inner, file);
}
const dashboards = 'samples/grafana/dashboards';
for (const file of readdirSync(join(root, dashboards)).filter((name) => name.endsWith('.json'))) {
  collect(JSON.parse(readFileSync(join(root, dashboards, file))), file);
}
const inDashboards = queries.length;
for (const file of readdirSync(join(root, 'docs/receivers')).filter((name) => name.endsWith('.md'))) {
  const text = readFileSync(join(root, 'docs/receivers', file), 'utf8');
  for (const [, block] of text.matchAll(/```logql\n(.*?)```/gs)) {
    for (const query of block.trim().split('\n')) queries.push([file, query]);
  }
}

let failed = inDashboards === 0 || queries.length === inDashboards;
for (const [file, query] of queries) {
  // Grafana replaces its variables before it parses.
  const text = query.replaceAll(/\[\$__\w+\]/g, '[5m]').replaceAll(/\$\w+/g, 'value');
  parser.parse(text).iterate({
    enter(node) {
      if (!node.type.isError) return;
      failed = true;
      console.error(`${file}: not LogQL at \`${text.slice(node.from, node.from + 20)}\` in ${query}`);
    },
  });
}
console.log(`${queries.length} LogQL queries, ${inDashboards} of them of dashboards`);
process.exit(failed ? 1 : 0);
