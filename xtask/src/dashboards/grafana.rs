//! How a dashboard is written for Grafana: what is the same in all of them stands here. Knows no metric.

use super::json::{Json, object};

/// The tag that all our dashboards carry, and by which they link to each other.
const TAG: &str = "multus-ebpf";
/// The metric that every agent has from its start, from which variables are read.
const EVERYWHERE: &str = "multus_build_info";
/// Columns of Grafana's grid.
const COLUMNS: u32 = 24;

/// One question, and what answers it.
pub(super) struct Dashboard {
    /// File name without ending, and the end of its uid: it never changes, links of users hold it.
    pub(super) name: &'static str,
    /// The question.
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    /// Beyond data source, job and instance.
    pub(super) variables: &'static [Variable],
    pub(super) rows: &'static [Row],
}

/// What can be chosen above the panels.
pub(super) struct Variable {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    /// A selector whose series have the label `name`; with `@` as in a query.
    pub(super) of: &'static str,
}

/// Panels side by side, equally wide. The number of panels divides 24.
pub(super) struct Row {
    pub(super) height: u32,
    pub(super) panels: &'static [Panel],
}

/// One answer.
pub(super) struct Panel {
    kind: Kind,
    title: &'static str,
    unit: &'static str,
    about: &'static str,
    /// From where on a number is a warning, and from where on it is bad.
    levels: Option<(f64, f64)>,
    queries: &'static [Query],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stat,
    Lines,
    Stacked,
    Table,
}

/// What a panel asks.
pub(super) struct Query {
    /// PromQL in which `@` stands for what is chosen of jobs and instances, and `#` for that and all other variables.
    expr: &'static str,
    /// What a series is called; of a table, the column's head.
    legend: &'static str,
    /// Of a column, where it is not the panel's.
    unit: &'static str,
}

/// A query and what its series are called.
pub(super) const fn query(expr: &'static str, legend: &'static str) -> Query {
    Query { expr, legend, unit: "" }
}

/// A column of a table, with its unit.
pub(super) const fn column(expr: &'static str, head: &'static str, unit: &'static str) -> Query {
    Query { expr, legend: head, unit }
}

const fn panel(kind: Kind, title: &'static str, unit: &'static str, queries: &'static [Query]) -> Panel {
    Panel { kind, title, unit, about: "", levels: None, queries }
}

/// One number, the newest.
pub(super) const fn stat(title: &'static str, unit: &'static str, queries: &'static [Query]) -> Panel {
    panel(Kind::Stat, title, unit, queries)
}

/// Lines over time.
pub(super) const fn lines(title: &'static str, unit: &'static str, queries: &'static [Query]) -> Panel {
    panel(Kind::Lines, title, unit, queries)
}

/// Areas over time, one on the other: parts of a whole.
pub(super) const fn stacked(title: &'static str, unit: &'static str, queries: &'static [Query]) -> Panel {
    panel(Kind::Stacked, title, unit, queries)
}

/// Rows of now, the largest of the first column first.
pub(super) const fn table(title: &'static str, unit: &'static str, queries: &'static [Query]) -> Panel {
    panel(Kind::Table, title, unit, queries)
}

impl Panel {
    /// What it shows, and what to do about it: the text behind the panel's "i".
    pub(super) const fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    /// From where on a number is a warning, and from where on it is bad.
    pub(super) const fn warns(mut self, warning: f64, bad: f64) -> Self {
        self.levels = Some((warning, bad));
        self
    }
}

/// The document.
pub(super) fn document(dashboard: &Dashboard) -> Json {
    let mut panels: Vec<Json> = Vec::new();
    let mut top = 0;
    for row in dashboard.rows {
        let width = COLUMNS / u32::try_from(row.panels.len()).unwrap_or(1).max(1);
        let mut left = 0;
        for panel in row.panels {
            let id = u32::try_from(panels.len() + 1).unwrap_or(u32::MAX);
            let place = object! {"x": left, "y": top, "w": width, "h": row.height};
            panels.push(drawn(panel, id, place, dashboard.variables));
            left += width;
        }
        top += row.height;
    }
    object! {
        "uid": format!("{TAG}-{}", dashboard.name),
        "title": format!("{TAG}: {}", dashboard.title),
        "description": dashboard.about,
        "tags": vec![TAG],
        "schemaVersion": 39_u32,
        "editable": false,
        "graphTooltip": 1_u32,
        "time": object! {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "timezone": "browser",
        "annotations": object! {"list": Vec::<Json>::new()},
        "links": vec![links()],
        "templating": object! {"list": variables(dashboard.variables)},
        "panels": panels,
    }
}

/// From each dashboard to all others, with what was chosen and the time.
fn links() -> Json {
    object! {
        "type": "dashboards", "title": TAG, "tags": vec![TAG], "asDropdown": false, "icon": "external link",
        "includeVars": true, "keepTime": true, "targetBlank": false, "tooltip": "", "url": "",
    }
}

fn variables(more: &[Variable]) -> Vec<Json> {
    let source = object! {
        "type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "refresh": 1_u32,
        "regex": "", "hide": 0_u32, "includeAll": false, "multi": false, "options": Vec::<Json>::new(),
    };
    let job = chosen("job", "Job", EVERYWHERE);
    let instance = chosen("instance", "Instance", &format!("{EVERYWHERE}{{job=~\"$job\"}}"));
    let more = more.iter().map(|variable| chosen(variable.name, variable.label, &expanded(variable.of, &[])));
    [source, job, instance].into_iter().chain(more).collect()
}

/// A variable with the values of a label; all of them at first.
fn chosen(name: &str, label: &str, of: &str) -> Json {
    let query = format!("label_values({of}, {name})");
    object! {
        "type": "query", "name": name, "label": label, "datasource": source(), "query": query.as_str(),
        "definition": query, "refresh": 2_u32, "regex": "", "sort": 1_u32, "hide": 0_u32,
        "includeAll": true, "allValue": ".+", "multi": true, "options": Vec::<Json>::new(),
        "current": object! {"selected": true, "text": vec!["All"], "value": vec!["$__all"]},
    }
}

fn source() -> Json {
    object! {"type": "prometheus", "uid": "${datasource}"}
}

/// The expression with its two short words written out.
fn expanded(expr: &str, variables: &[Variable]) -> String {
    const HERE: &str = "job=~\"$job\", instance=~\"$instance\"";
    let matcher = |Variable { name, .. }: &Variable| format!("{name}=~\"${name}\"");
    let all: Vec<String> = std::iter::once(HERE.to_owned()).chain(variables.iter().map(matcher)).collect();
    expr.replace('@', HERE).replace('#', &all.join(", "))
}

fn drawn(panel: &Panel, id: u32, place: Json, variables: &[Variable]) -> Json {
    let kind = match panel.kind {
        Kind::Stat => "stat",
        Kind::Lines | Kind::Stacked => "timeseries",
        Kind::Table => "table",
    };
    let targets = panel.queries.iter().zip('A'..='F').map(|(query, id)| target(panel.kind, query, id, variables));
    let mut fields = vec![
        ("id", id.into()),
        ("type", kind.into()),
        ("title", panel.title.into()),
        ("description", panel.about.into()),
        ("gridPos", place),
        ("datasource", source()),
        ("targets", targets.collect::<Vec<_>>().into()),
        ("fieldConfig", fields_of(panel)),
        ("options", options(panel.kind)),
    ];
    if panel.kind == Kind::Table {
        fields.push(("transformations", columns(panel.queries)));
    }
    Json::Object(fields)
}

fn target(kind: Kind, query: &Query, id: char, variables: &[Variable]) -> Json {
    let is_table = kind == Kind::Table;
    let (legend, shape) = if is_table { ("", "table") } else { (query.legend, "time_series") };
    object! {
        "refId": id.to_string(), "datasource": source(), "editorMode": "code",
        "expr": expanded(query.expr, variables), "legendFormat": legend, "format": shape,
        "instant": is_table, "range": !is_table,
    }
}

fn fields_of(panel: &Panel) -> Json {
    let step = |color: &str, value: f64| object! {"color": color, "value": value};
    let mut steps = vec![object! {"color": "green", "value": Json::Null}];
    if let Some((warning, bad)) = panel.levels {
        steps.extend([step("orange", warning), step("red", bad)]);
    }
    let custom = match panel.kind {
        Kind::Lines => object! {"fillOpacity": 8_u32, "lineWidth": 1_u32, "showPoints": "never"},
        Kind::Stacked => object! {
            "fillOpacity": 40_u32, "lineWidth": 1_u32, "showPoints": "never",
            "stacking": object! {"mode": "normal", "group": "A"},
        },
        Kind::Stat | Kind::Table => object! {},
    };
    let color = if panel.kind == Kind::Stat { "thresholds" } else { "palette-classic" };
    let defaults = object! {
        "unit": panel.unit, "min": 0_u32, "color": object! {"mode": color},
        "thresholds": object! {"mode": "absolute", "steps": steps}, "custom": custom,
    };
    let own_unit = panel.queries.iter().filter(|query| !query.unit.is_empty()).map(|query| {
        object! {
            "matcher": object! {"id": "byName", "options": query.legend},
            "properties": vec![object! {"id": "unit", "value": query.unit}],
        }
    });
    object! {"defaults": defaults, "overrides": own_unit.collect::<Vec<_>>()}
}

fn options(kind: Kind) -> Json {
    match kind {
        Kind::Stat => object! {
            "colorMode": "value", "graphMode": "area", "textMode": "auto", "justifyMode": "auto", "orientation": "auto",
            "reduceOptions": object! {"calcs": vec!["lastNotNull"], "fields": "", "values": false},
        },
        Kind::Lines | Kind::Stacked => object! {
            "legend": object! {"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": Vec::<Json>::new()},
            "tooltip": object! {"mode": "multi", "sort": "desc"},
        },
        Kind::Table => object! {"showHeader": true, "cellHeight": "sm"},
    }
}

/// One row for each set of labels; one column for each query.
fn columns(queries: &[Query]) -> Json {
    let names = match queries {
        [only] => vec![("Value", only.legend)],
        many => VALUES.into_iter().zip(many.iter().map(|query| query.legend)).collect(),
    };
    let first = names.first().map(|(_, head)| *head).unwrap_or_default();
    let renamed = Json::Object(names.into_iter().map(|(from, to)| (from, Json::from(to))).collect());
    let by_first = object! {"fields": object! {}, "sort": vec![object! {"field": first, "desc": true}]};
    Json::List(vec![
        object! {"id": "merge", "options": object! {}},
        object! {"id": "organize", "options": object! {"excludeByName": object! {"Time": true}, "renameByName": renamed}},
        object! {"id": "sortBy", "options": by_first},
    ])
}

/// What Grafana calls the values of several queries.
const VALUES: [&str; 6] = ["Value #A", "Value #B", "Value #C", "Value #D", "Value #E", "Value #F"];
