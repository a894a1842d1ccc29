#!/usr/bin/env python3
"""Writes dashboards/*.json, which Grafana reads. Edit this file and run it; the test fails where they differ.

  deploy/grafana/dashboards.py            write them
  deploy/grafana/dashboards.py --check    fail where a file is not what this program writes

A panel says which of its queries may be zero on a service that works, such as errors: `rests=True`. All others must
show something other than zero in the test (scripts/lib/dashboards.py), so that a name that is wrong cannot hide
behind a zero.
"""

import json
import pathlib
import sys

OUT = pathlib.Path(__file__).resolve().parent / "dashboards"
PROMETHEUS = {"type": "prometheus", "uid": "prometheus"}
INFLUXDB = {"type": "influxdb", "uid": "k6"}
LOKI = {"type": "loki", "uid": "loki"}

# Of the instances that are chosen in the dashboard.
OURS = 'job="boxoffice", instance=~"$instance"'
# 0 while at least one instance answers, and nothing while none does: a service that is away has no zero errors.
ZERO = '0 * count(up{job="boxoffice"} == 1)'

GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"


def or_zero(expr, label=None):
    """`expr`, or a zero where it has no series; with a label it gets a name in the legend."""
    zero = f'label_replace({ZERO}, "{label}", "none yet", "", "")' if label else ZERO
    return f"{expr} or on () {zero}"


class Query:
    def __init__(self, text, legend="", *, rests=False, fmt=None):
        self.text, self.legend, self.rests, self.fmt = text, legend, rests, fmt


class Panel:
    def __init__(self, title, queries, *, kind="timeseries", unit="short", width=8, height=8, about="", steps=None,
                 stack=False, maximum=None, decimals=None, line_at=None, source=None):
        self.title, self.queries, self.kind, self.unit, self.width, self.height = title, queries, kind, unit, width, height
        self.about, self.steps, self.stack, self.maximum, self.decimals = about, steps, stack, maximum, decimals
        # A threshold that is drawn as a line.
        self.line_at = line_at
        # Where it is another than that of the dashboard.
        self.source = source


class Row:
    def __init__(self, title):
        self.title = title


def thresholds(panel):
    steps = panel.steps or ([(None, GREEN), (panel.line_at, RED)] if panel.line_at is not None else [(None, GREEN)])
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]}


def target(query, ref, source):
    common = {"refId": ref, "datasource": source}
    if source is INFLUXDB:
        return {**common, "query": query.text, "rawQuery": True, "resultFormat": "time_series", "alias": query.legend}
    if source is LOKI:
        return {**common, "expr": query.text, "legendFormat": query.legend, "queryType": "range"}
    more = {"instant": True, "range": False} if query.fmt == "table" else {"range": True}
    return {**common, "expr": query.text, "legendFormat": query.legend, "format": query.fmt or "time_series", **more}


def rendered(panel, number, x, y, source):
    defaults = {"unit": panel.unit, "thresholds": thresholds(panel), "min": 0, "mappings": []}
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    if panel.unit in ("s-signed",):
        defaults["unit"] = "s"
        del defaults["min"]
    options = {}
    if panel.kind == "timeseries":
        defaults["color"] = {"mode": "palette-classic"}
        defaults["custom"] = {
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": 25 if panel.stack else 8, "showPoints": "never",
            "spanNulls": False, "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.line_at is not None else "off"},
        }
        options = {
            "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["mean", "max", "lastNotNull"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    elif panel.kind == "stat":
        defaults["color"] = {"mode": "thresholds"}
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "background", "graphMode": "area", "textMode": "value", "justifyMode": "center",
        }
    elif panel.kind == "heatmap":
        defaults = {"custom": {"scaleDistribution": {"type": "linear"}}}
        buckets = panel.queries[0].fmt == "heatmap"
        options = {
            "calculate": not buckets,
            "yAxis": {"unit": panel.unit, "axisPlacement": "left", "min": "0"},
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "reverse": False},
            "cellGap": 1, "legend": {"show": True}, "tooltip": {"mode": "single", "yHistogram": True},
            "rowsFrame": {"layout": "auto"},
        }
        if not buckets:
            options["calculation"] = {"xBuckets": {"mode": "count", "value": "80"},
                                      "yBuckets": {"mode": "count", "scale": {"type": "log", "log": 2}, "value": "2"}}
    elif panel.kind == "logs":
        defaults = {}
        options = {"showTime": True, "wrapLogMessage": True, "enableLogDetails": True, "dedupStrategy": "none", "sortOrder": "Descending",
                   "prettifyLogMessage": False, "showLabels": False, "showCommonLabels": False}
    elif panel.kind == "table":
        options = {"showHeader": True, "footer": {"show": False}}
    return {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.about, "datasource": source,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "targets": [target(query, chr(ord("A") + i), source) for i, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options, "interval": "1s" if source is INFLUXDB else None,
    }


def variable(name, label, query, source):
    return {
        "name": name, "label": label, "type": "query", "datasource": source, "query": query, "definition": query,
        "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"], "selected": True}, "hide": 0,
    }


def dashboard(uid, title, about, source, things, variables, *, refresh, span):
    """The dashboard as Grafana reads it, and which of its queries may be zero."""
    panels, x, y, row_height = [], 0, 0, 0
    for number, thing in enumerate(things, 1):
        if isinstance(thing, Row):
            y, x, row_height = y + row_height, 0, 0
            panels.append({"id": number, "type": "row", "title": thing.title, "collapsed": False, "panels": [],
                           "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
            y += 1
            continue
        if x + thing.width > 24:
            y, x, row_height = y + row_height, 0, 0
        panels.append(rendered(thing, number, x, y, thing.source or source))
        x, row_height = x + thing.width, max(row_height, thing.height)
    rests = {(uid, thing.title, chr(ord("A") + i)) for thing in things if isinstance(thing, Panel)
             for i, query in enumerate(thing.queries) if query.rests}
    return {
        "uid": uid, "title": title, "description": about, "tags": ["boxoffice"], "schemaVersion": 39, "version": 1,
        "editable": True, "graphTooltip": 1, "timezone": "browser", "refresh": refresh,
        "time": {"from": f"now-{span}", "to": "now"}, "templating": {"list": variables}, "annotations": {"list": []},
        "links": [{"type": "dashboards", "tags": ["boxoffice"], "title": "boxoffice", "asDropdown": True,
                   "includeVars": False, "keepTime": True, "targetBlank": False, "icon": "external link", "url": ""}],
        "panels": panels,
    }, rests


# ---------------------------------------------------------------- k6, over InfluxDB

NAMES = '"name" =~ /^$name$/'


def per_second(measurement, *, where="", by=""):
    """A true rate at every zoom: the sum of each second, and of those the mean."""
    tags = f', "{by}"' if by else ""
    inner = (f'SELECT sum("value") AS "each" FROM "{measurement}" WHERE $timeFilter{where} '
             f"GROUP BY time(1s){tags} fill(0)")
    return f'SELECT mean("each") FROM ({inner}) WHERE $timeFilter GROUP BY time($__interval){tags} fill(0)'


def trend(measurement, what, *, by=""):
    """A figure of durations; where there were none there is nothing to show."""
    tags = f', "{by}"' if by else ""
    return f'SELECT {what} FROM "{measurement}" WHERE $timeFilter AND {NAMES} GROUP BY time($__interval){tags} fill(none)'


def whole(measurement, what):
    return f'SELECT {what} FROM "{measurement}" WHERE $timeFilter AND {NAMES}'


FIGURES = (("mean", 'mean("value")'), ("max", 'max("value")'), ("med", 'median("value")'), ("min", 'min("value")'),
           ("p90", 'percentile("value", 90)'), ("p95", 'percentile("value", 95)'))


def k6():
    by_name = f" AND {NAMES}"
    things = [
        Row("Load"),
        Panel("Virtual users", [Query('SELECT max("value") FROM "vus" WHERE $timeFilter GROUP BY time($__interval) fill(none)', "running"),
                                Query('SELECT max("value") FROM "vus_max" WHERE $timeFilter GROUP BY time($__interval) fill(none)', "at most")],
              width=6),
        Panel("Requests a second", [Query(per_second("http_reqs", where=by_name), "requests")], unit="reqps", width=6),
        Panel("Errors a second", [Query(per_second("http_req_failed", where=by_name), "failed", rests=True)], unit="reqps", width=6,
              steps=[(None, GREEN), (0.001, RED)],
              about="Answers that the script does not expect, and requests without an answer. A seat that another was faster to take is no error."),
        Panel("Checks a second", [Query(per_second("checks"), "passed"),
                                  Query(per_second("checks").replace('sum("value")', 'count("value") - sum("value")'), "failed", rests=True)],
              unit="ops", width=6),
        Panel("Iterations a second", [Query(per_second("iterations"), "done"), Query(per_second("dropped_iterations"), "dropped", rests=True)],
              unit="ops", width=12,
              about="Dropped: k6 had no virtual user free when an iteration was due, so the load was less than was asked for. No line: none was dropped."),
        Panel("Transfer", [Query(per_second("data_received"), "received"), Query(per_second("data_sent"), "sent")], unit="Bps", width=12),
        Row("http_req_duration"),
        *(Panel(name, [Query(whole("http_req_duration", what), name)], kind="stat", unit="ms", width=4, height=4, decimals=2,
                steps=[(None, BLUE)]) for name, what in FIGURES),
        Panel("http_req_duration over time", [Query(trend("http_req_duration", what), name) for name, what in FIGURES], unit="ms",
              width=12, height=10),
        Panel("http_req_duration, heat map", [Query(
            f'SELECT sample("value", 100) FROM "http_req_duration" WHERE $timeFilter AND {NAMES} GROUP BY time($__interval)', "ms")],
            kind="heatmap", unit="ms", width=12, height=10, about="Up to 100 requests of each interval, drawn by lot: the shape is right, the counts are not."),
        Row("By name and status"),
        Panel("p95 by name", [Query(trend("http_req_duration", 'percentile("value", 95)', by="name"), "$tag_name")], unit="ms"),
        Panel("Requests a second by name", [Query(per_second("http_reqs", where=by_name, by="name"), "$tag_name")], unit="reqps", stack=True),
        Panel("Requests a second by status", [Query(per_second("http_reqs", where=by_name, by="status"), "$tag_status")], unit="reqps", stack=True,
              about="0: no answer."),
        Row("Where the time goes"),
        Panel("http_req_connecting", [Query(trend("http_req_connecting", 'mean("value")'), "mean", rests=True),
                                      Query(trend("http_req_connecting", 'max("value")'), "max"),
                                      Query(trend("http_req_connecting", 'percentile("value", 95)'), "p95", rests=True)], unit="ms",
              about="0 where a connection was open already."),
        Panel("http_req_waiting", [Query(trend("http_req_waiting", what), name) for name, what in FIGURES], unit="ms",
              about="From the last byte sent to the first received: the server and the way."),
        Panel("Sending, receiving, blocked (mean)", [
            Query(trend("http_req_sending", 'mean("value")'), "sending"), Query(trend("http_req_receiving", 'mean("value")'), "receiving"),
            Query(trend("http_req_blocked", 'mean("value")'), "blocked")], unit="ms",
            about="Blocked: k6 itself waited for a connection."),
    ]
    return dashboard("boxoffice-k6", "boxoffice: k6", "What k6 saw, from its InfluxDB.", INFLUXDB, things,
                     [variable("name", "Request", 'SHOW TAG VALUES FROM "http_req_duration" WITH KEY = "name"', INFLUXDB)],
                     refresh="5s", span="15m")


# ---------------------------------------------------------------- the service, over Prometheus

def rate(metric, *, by="", more="", how="sum"):
    grouping = f" by ({by})" if by else ""
    matchers = OURS + (f", {more}" if more else "")
    return f"{how}{grouping} (rate({metric}{{{matchers}}}[$__rate_interval]))"


def level(metric, *, by="instance", how="max"):
    return f"{how} by ({by}) ({metric}{{{OURS}}})" if by else f"{how} ({metric}{{{OURS}}})"


def quantile(metric, share, *, by="", more=""):
    return f"histogram_quantile({share}, {rate(metric + '_bucket', by=', '.join(filter(None, [by, 'le'])), more=more)})"


QUANTILES = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
HTTP = "http_server_request_duration_seconds"
API = 'route=~"/api/.*"'
FAILED = API + ', status="5xx"'


def service():
    things = [
        Row("Queue"),
        Panel("Waiting and active", [Query(level("boxoffice_queue_waiting", by="queue"), "waiting, {{queue}}"),
                                     Query(level("boxoffice_queue_active", by="queue"), "active, {{queue}}")],
              about="The same queue seen by each instance: the largest is shown."),
        Panel("Joined, admitted, left a second", [Query(rate("boxoffice_queue_joined_total", by="queue"), "joined, {{queue}}"),
                                                  Query(rate("boxoffice_queue_admitted_total", by="queue"), "admitted, {{queue}}"),
                                                  Query(rate("boxoffice_queue_left_total", by="queue"), "left, {{queue}}", rests=True)], unit="ops"),
        Panel("Wait at the present pace", [Query(or_zero("boxoffice:queue_wait_seconds:estimate", "queue"), "{{queue}}", rests=True)], unit="s",
              about="Waiting, divided by the admissions a second. Nothing is known while nobody is admitted: then it says none yet."),
        Panel("Expired and no-show a second", [Query(rate("boxoffice_queue_expired_total", by="queue", how="max"), "expired, {{queue}}", rests=True),
                                               Query(rate("boxoffice_queue_no_show_total", by="queue", how="max"), "no-show, {{queue}}", rests=True)], unit="ops", width=6,
              about="Expired: let in, and out of time. No-show: let in, and not come within the claim window."),
        Panel("Highest number admitted", [Query(level("boxoffice_queue_serving", by="queue, instance"), "{{queue}}, {{instance}}")], width=6,
              about="A flat line is a queue that stands still. Instances apart from each other: one does not hear the news."),
        Panel("Share of the rate", [Query(level("boxoffice_governor_share", how="min"), "{{instance}}")], unit="percentunit", maximum=1, line_at=0.9,
              steps=[(None, RED), (0.9, GREEN)], width=6,
              about="Less than all: purchases wait or are refused, so fewer are let in. BoxofficeAdmissionSlowed fires below 90 %. Instances apart from each other: Redis is away."),
        Panel("Rate, and what of it is let in", [Query(level("boxoffice_queue_admit_per_second", by="queue"), "rate, {{queue}}"),
                                                 Query(level("boxoffice_queue_admitting_per_second", by="queue", how="min"), "at the most, {{queue}}", rests=True)],
              unit="ops", width=6, about="Apart from each other: the shop cannot serve more. 0: paused, before its opening, or nothing to buy."),
        Row("Requests"),
        Panel("Requests a second by route", [Query(rate(HTTP + "_count", by="method, route"), "{{method}} {{route}}")], unit="reqps", stack=True),
        Panel("Requests a second by status", [Query(rate(HTTP + "_count", by="status"), "{{status}}")], unit="reqps", stack=True,
              about="4xx are rejections that the rules demand, such as a seat that is taken."),
        Panel("Errors (5xx) of all requests to the API", [Query(
            f"({or_zero(rate(HTTP + '_count', more=FAILED))}) / ({rate(HTTP + '_count', more=API)} > 0)", "errors", rests=True)],
            unit="percentunit", line_at=0.01, decimals=3),
        Panel("Duration, API", [Query(quantile(HTTP, share, more=API), name) for share, name in QUANTILES], unit="s"),
        Panel("p95 by route", [Query(quantile(HTTP, 0.95, by="method, route", more=API), "{{method}} {{route}}")], unit="s"),
        Panel("Duration, API, heat map", [Query(f"sum by (le) (increase({HTTP}_bucket{{{OURS}, {API}}}[$__rate_interval]))", "{{le}}", fmt="heatmap")],
              kind="heatmap", unit="s"),
        Row("Sales"),
        Panel("Reservations a second by outcome", [Query(or_zero(rate("boxoffice_reservations_total", by="outcome"), "outcome"), "{{outcome}}")], unit="ops"),
        Panel("Payments a second by outcome", [Query(or_zero(rate("boxoffice_payments_total", by="outcome"), "outcome"), "{{outcome}}")], unit="ops"),
        Panel("Point charges a second by outcome", [Query(or_zero(rate("boxoffice_points_charges_total", by="outcome"), "outcome"), "{{outcome}}")], unit="ops"),
        Row("Store"),
        Panel("Commits", [Query(quantile("boxoffice_store_commit_duration_seconds", share), name) for share, name in QUANTILES], unit="s", width=6),
        Panel("Commits a second", [Query(rate("boxoffice_store_commit_duration_seconds_count", by="instance"), "{{instance}}")], unit="ops", width=6),
        Panel("Commands in a commit", [Query(
            f"{rate('boxoffice_store_batch_commands_sum', by='instance')} / ({rate('boxoffice_store_batch_commands_count', by='instance')} > 0)", "{{instance}}")],
            width=6, about="More under load: commands that wait share a commit."),
        Panel("Commands waiting", [Query(level("boxoffice_store_pending_commands"), "{{instance}}", rests=True)], width=6,
              about="At store.queue_max (16,384) the next is answered 503."),
        Panel("Seat lists rendered a second", [Query(rate("boxoffice_seat_list_builds_total", by="instance"), "{{instance}}")], unit="ops", width=6),
        Panel("Seat lists asked for, a second", [Query("boxoffice:seat_lists:rate10s", "asked for"),
                                                 Query("boxoffice:seat_lists_expected:max", "those who are there, at the most"),
                                                 Query("boxoffice:seat_lists_before:rate10m", "some minutes before", rests=True)], unit="reqps", width=6,
              about="Of all instances. BoxofficeSeatListsFlood fires above what those who are there ask for, at five times what it was."),
        Panel("Streams of seat states", [Query(level("boxoffice_seat_streams"), "{{instance}}", rests=True)], width=6,
              about="Those who see seats change. At server.streams_max (4,096) the next is answered 503, and asks now and then instead."),
        Panel("Streams refused, a second", [Query(rate("boxoffice_seat_streams_refused_total", by="instance"), "{{instance}}", rests=True)], unit="ops", width=6),
        Panel("Seat events sent, a second", [Query(rate("boxoffice_seat_stream_events_total", by="instance"), "{{instance}}", rests=True)], unit="ops", width=6,
              about="At most four a second for each stream."),
        Panel("Of those, all seats again", [Query(rate("boxoffice_seat_stream_resends_total", by="instance"), "{{instance}}", rests=True)], unit="ops", width=6,
              about="To connections that are too slow for the changes."),
        Row("Events"),
        Panel("Events waiting", [Query(level("boxoffice_events_pending", by=""), "waiting", rests=True)], line_at=1000, width=6,
              about="2,000 means 2,000 or more."),
        Panel("Published a second", [Query(rate("boxoffice_events_published_total", by="instance"), "{{instance}}")], unit="ops", width=6,
              about="One instance publishes for all."),
        Panel("Hand-overs that failed, a second", [Query(rate("boxoffice_events_failures_total", by="instance"), "{{instance}}", rests=True)], unit="ops", width=6),
        Panel("Duration of hand-overs", [Query(quantile("boxoffice_events_publish_duration_seconds", share), name) for share, name in QUANTILES], unit="s", width=6),
        Row("Saturation"),
        Panel("CPU", [Query(rate("process_cpu_seconds_total", by="instance"), "{{instance}}")], unit="none", decimals=2,
              about="CPUs in use by each instance. compose.yaml limits each to BOXOFFICE_CPUS."),
        Panel("CPU time of a request", [Query(f"{rate('process_cpu_seconds_total', by='instance')} / ({rate(HTTP + '_count', by='instance')} > 0)", "{{instance}}")],
              unit="s"),
        Panel("CPU, to what each may use", [
            Query('boxoffice:cpu_used_ratio:rate15s{instance=~"$instance"}', "used, {{instance}}"),
            Query(or_zero('boxoffice:cpu_throttled_ratio:rate15s{instance=~"$instance"}', "instance"), "held back by a quota, {{instance}}", rests=True),
            Query(or_zero('boxoffice:run_queue_wait_ratio:rate15s{instance=~"$instance"}', "instance"), "waited for a CPU, {{instance}}", rests=True)],
              unit="percentunit", line_at=0.9, about="Of 15 s. What was wanted and not had can be more than 100 %. BoxofficeCpuSaturated fires at 90 and 25 %, BoxofficeCpuContended at 50 %."),
        Panel("Memory", [Query(level("process_resident_memory_bytes"), "{{instance}}")], unit="bytes"),
        Panel("Connections", [Query(level("http_server_connections"), "{{instance}}")], about="At server.max_connections (16,000) the next is refused."),
        Panel("Turned away a second", [Query(rate("http_server_requests_shed_total", by="class"), "shed, {{class}}", rests=True),
                                       Query(rate("http_server_connections_refused_total", by="limit"), "connections refused, {{limit}}", rests=True),
                                       Query(rate("http_server_bodies_refused_total", by="limit"), "bodies refused, {{limit}}", rests=True),
                                       Query(rate("http_server_connections_cut_total"), "connections cut", rests=True)], unit="ops"),
        Panel("Open files", [Query(level("process_open_fds"), "{{instance}}")]),
        Row("Redis (several instances)"),
        Panel("Redis answers", [Query(level("boxoffice_redis_up"), "{{instance}}")], maximum=1, width=6,
              about="0 also where no Redis is configured."),
        Panel("Calls a second", [Query(or_zero(rate("boxoffice_redis_calls_total", by="kind"), "kind"), "{{kind}}")], unit="ops", width=6),
        Panel("Trouble a second", [Query(rate("boxoffice_redis_errors_total"), "calls that failed", rests=True),
                                   Query(rate("boxoffice_redis_direct_joins_total"), "joins through the store", rests=True),
                                   Query(rate("boxoffice_redis_elsewhere_joins_total"), "joins sent elsewhere", rests=True),
                                   Query(rate("boxoffice_redis_places_skipped_total"), "numbers skipped", rests=True)], unit="ops", width=6),
        Panel("Numbers ready in Redis", [Query(level("boxoffice_redis_pooled_numbers"), "{{instance}}", rests=True)], width=6,
              about="How many can join while the store is away."),
        Panel("Connections made, grants, reloads, losses", [Query(level("boxoffice_redis_connections_total"), "connections, {{instance}}"),
                                                            Query(level("boxoffice_redis_grants_total", by="", how="sum"), "grants"),
                                                            Query(level("boxoffice_redis_reloads_total"), "reloads, {{instance}}", rests=True),
                                                            Query(level("boxoffice_redis_lost_total"), "Redis lost what it had, {{instance}}", rests=True)], width=6,
              about="Since each instance started. One reload in 30 s is ordinary."),
        Panel("Clock, ahead of that of the database", [Query(level("boxoffice_database_clock_ahead_seconds"), "{{instance}}", rests=True)], unit="s-signed", width=6),
        Panel("Clock jumps since the start", [Query(level("boxoffice_clock_jumps_total"), "{{instance}}", rests=True)], width=6),
        Panel("Invariants violated", [Query(or_zero(level("boxoffice_invariant_violations_total", by="invariant"), "invariant"), "{{invariant}}", rests=True)], width=6,
              about="What audits found since the start. No audit, no finding: boxoffice audit."),
        Row("Log"),
        Panel("Lines a second by level", [Query('sum by (level) (rate({job="boxoffice"}[$__auto]))', "{{level}}")], unit="ops", stack=True, source=LOKI,
              about="Of all instances. A storm of warnings is bounded: one line stands for many of a kind (log.left_out)."),
        Panel("Warnings and errors", [Query('{job="boxoffice", level=~"WARN|ERROR"}')], kind="logs", width=16, height=10, source=LOKI,
              about="Of all instances, in the time that the figures above show. A line's request or trace leads to all lines of it."),
    ]
    return dashboard("boxoffice-service", "boxoffice: service", "The service from inside, from its /metrics.", PROMETHEUS, things,
                     [variable("instance", "Instance", 'label_values(boxoffice_build_info{job="boxoffice"}, instance)', PROMETHEUS)],
                     refresh="5s", span="30m")


# ---------------------------------------------------------------- the night of the on-sale

def overview():
    def number(title, query, unit="short", steps=None, about="", decimals=None, rests=False, width=4):
        return Panel(title, [Query(query, rests=rests)], kind="stat", unit=unit, steps=steps or [(None, BLUE)], about=about,
                     width=width, height=5, decimals=decimals)

    things = [
        Row("Does it sell?"),
        number("Instances that answer", 'count(up{job="boxoffice"} == 1) or vector(0)', steps=[(None, RED), (1, GREEN)],
               about="0 is red: nobody sells."),
        number("Alerts", 'count(ALERTS{alertstate="firing"}) or vector(0)', steps=[(None, GREEN), (1, RED)], rests=True,
               about="What fires is in the list below."),
        number("Errors", f"boxoffice:api_error_ratio:rate1m or on () {ZERO}", "percentunit", [(None, GREEN), (0.001, YELLOW), (0.01, RED)], decimals=2, rests=True,
               about="Of the last minute. Rejections that the rules demand are no errors."),
        number("95 % of answers within", "boxoffice:api_request_duration_seconds:p95", "s", [(None, GREEN), (0.3, YELLOW), (1, RED)], decimals=2,
               about="Of the last minute. No data: nobody asked anything."),
        number("Events behind", "boxoffice:events_pending:max", steps=[(None, GREEN), (100, YELLOW), (1000, RED)], rests=True,
               about="Wait to be published. The sale goes on without."),
        number("Invariants broken", or_zero('sum(boxoffice_invariant_violations_total{job="boxoffice"})'), steps=[(None, GREEN), (1, RED)], rests=True,
               about="What audits found. Not zero: pause the queue and call somebody."),
        Row("The line"),
        number("People waiting", "sum(boxoffice:queue_waiting:max)", rests=True, width=6),
        number("Let in a second", "sum(boxoffice:queue_admitted:rate1m)", "ops", decimals=1, width=6),
        number("The last one waits for", or_zero("max(boxoffice:queue_wait_seconds:estimate)"), "s", rests=True, decimals=0, width=6,
               about="At the pace of the last minute."),
        number("Inside and not finished", "sum(boxoffice:queue_active:max)", rests=True, width=6),
        Row("Tickets"),
        number("Purchases in this window", 'sum(increase(boxoffice_payments_total{job="boxoffice", outcome="completed"}[$__range]))', decimals=0, width=6,
               about="Paid reservations in the time that the dashboard shows."),
        number("Purchases a second", 'sum(boxoffice:payments:rate1m{outcome="completed"})', "ops", decimals=2, width=6),
        number("Holds a second", 'sum(boxoffice:reservations:rate1m{outcome="created"})', "ops", decimals=2, width=6),
        number("Seats that another was faster to take", or_zero('sum(boxoffice:reservations:rate1m{outcome="seat_taken"})'), "ops", decimals=2, rests=True, width=6,
               about="A second. Much of it near the end is what a sold-out sale looks like."),
        Row("How it went"),
        Panel("Waiting and inside", [Query("boxoffice:queue_waiting:max", "waiting, {{queue}}"), Query("boxoffice:queue_active:max", "inside, {{queue}}")], width=12),
        Panel("Joined, let in, bought (a second)", [Query("sum(boxoffice:queue_joined:rate1m)", "joined"),
                                                    Query("sum(boxoffice:queue_admitted:rate1m)", "let in"),
                                                    Query('sum(boxoffice:payments:rate1m{outcome="completed"})', "bought")], unit="ops", width=12),
        Panel("Answers within", [Query("boxoffice:api_request_duration_seconds:p95", "95 %"), Query("boxoffice:api_request_duration_seconds:p99", "99 %")],
              unit="s", line_at=1),
        Panel("Requests a second", [Query("boxoffice:api_requests:rate1m", "requests"),
                                    Query("boxoffice:requests_shed:rate1m", "turned away", rests=True)], unit="reqps"),
        Panel("CPU of each instance", [Query("boxoffice:cpu_seconds:rate1m", "{{instance}}")], unit="none", decimals=2,
              about="CPUs in use. Near its limit (BOXOFFICE_CPUS) answers get slow."),
        Panel("What fires", [Query('max by (alertname, severity, alertstate) (ALERTS) or on () label_replace(vector(0), "alertname", "none", "", "")', fmt="table",
                               rests=True)], kind="table", width=24, height=6, about="1: fires or is about to."),
    ]
    return dashboard("boxoffice-overview", "boxoffice: on-sale", "One look at the night of the on-sale.", PROMETHEUS, things, [],
                     refresh="5s", span="1h")


# The order in which Grafana shows them follows from their titles.
ALL = {"k6.json": k6, "service.json": service, "overview.json": overview}


def may_rest():
    """(dashboard's uid, panel's title, refId) of the queries that may be zero."""
    return set().union(*(make()[1] for make in ALL.values()))


def text_of(make):
    return json.dumps(make()[0], indent=1, ensure_ascii=False) + "\n"


def main():
    stale = []
    for name, make in ALL.items():
        path = OUT / name
        if sys.argv[1:] == ["--check"]:
            if not path.is_file() or path.read_text(encoding="utf-8") != text_of(make):
                stale.append(name)
        elif sys.argv[1:]:
            print(__doc__, file=sys.stderr)
            return 2
        else:
            OUT.mkdir(exist_ok=True)
            path.write_text(text_of(make), encoding="utf-8")
    others = [path.name for path in OUT.glob("*.json") if path.name not in ALL]
    for name in stale:
        print(f"deploy/grafana/dashboards/{name} is not what dashboards.py writes; run it", file=sys.stderr)
    for name in others:
        print(f"deploy/grafana/dashboards/{name} is of nobody", file=sys.stderr)
    return 1 if stale or others else 0


if __name__ == "__main__":
    sys.exit(main())
