// What pages of the console do in a browser. What comes from functions is put into pages as text only.
"use strict";

const token = document.querySelector('meta[name="csrf"]')?.content;

/** Asks the operators' API for something; resolves to the answer, or rejects with a problem (RFC 9457). */
async function ask(method, path, body, fields = {}) {
  const headers = { ...fields };
  if (token) headers["Dormouse-Csrf"] = token;
  if (body !== undefined && !(body instanceof Blob)) {
    headers["Content-Type"] = method === "PATCH" ? "application/merge-patch+json" : "application/json";
    body = JSON.stringify(body);
  }
  const response = await fetch(path, { method, headers, body });
  const text = await response.text();
  const json = text && response.headers.get("content-type")?.includes("json") ? JSON.parse(text) : null;
  if (!response.ok) throw json ?? { detail: `the host answered ${response.status}` };
  return json;
}

let toastTimer;
function tell(text) {
  document.getElementById("toast").textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { document.getElementById("toast").textContent = ""; }, 8000);
}

/** Parts of the page come again when they change; they are markup that the host made. */
function live() {
  if (!document.querySelector("[data-live]")) return;
  const events = new EventSource(location.href);
  events.onmessage = (event) => {
    for (const [id, markup] of Object.entries(JSON.parse(event.data))) {
      const part = document.getElementById(id);
      // Whoever is about to press a button in it keeps it.
      if (part && !part.contains(document.activeElement)) part.innerHTML = markup;
    }
  };
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-path]");
  if (!button || (button.dataset.sure && !confirm(button.dataset.sure))) return;
  button.disabled = true;
  const { method, path } = button.dataset;
  try {
    const reply = await ask(method, path, method === "POST" ? {} : undefined);
    button.blur();
    if (button.dataset.shows) {
      secret(reply[button.dataset.shows]);
      return await again("keys");
    }
    tell(`${button.textContent}: done`);
    if (method === "DELETE" && /^\/v1\/functions\/[^/]+$/.test(path)) location.href = "/";
    else if (!button.closest("[id]")?.matches("#lanes, #aliases, #triggers, #invocations")) location.reload();
  } catch (problem) {
    tell(problem.detail ?? String(problem));
  } finally {
    button.disabled = false;
  }
});

/** Shows a key that is never shown again. */
function secret(text) {
  const place = document.getElementById("secret");
  place.hidden = false;
  place.querySelector("output").textContent = text;
  place.scrollIntoView({ block: "center" });
}

/** Puts a part of the page as it is now into its place. */
async function again(id) {
  const page = new DOMParser().parseFromString(await (await fetch(location.href)).text(), "text/html");
  document.getElementById(id).replaceWith(page.getElementById(id));
}

/** Makes an access key. */
function key(form) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    forgive(form);
    const { description, functions, requestsPerSecond, days, rights } = form.elements;
    const wanted = {
      description: description.value,
      functions: functions.value.split(",").map((name) => name.trim()).filter(Boolean),
      rights: [...rights].filter((right) => right.checked).map((right) => right.value),
    };
    if (requestsPerSecond.value) wanted.requestsPerSecond = Number(requestsPerSecond.value);
    if (days.value) wanted.expiresAt = new Date(Date.now() + Number(days.value) * 86400e3).toISOString();
    try {
      secret((await ask("POST", form.dataset.key, wanted)).token);
      form.reset();
      await again("keys");
    } catch (problem) {
      blame(form, problem);
    }
  });
}

/** Lines of NAME=value. A line break in a value is written \\n, and a backslash \\\\. */
function pairs(text) {
  const written = (value) => value.replaceAll(/\\(.)/g, (whole, letter) => ({ n: "\n", r: "\r", "\\": "\\" })[letter] ?? whole);
  return Object.fromEntries(text.split("\n").filter((line) => line.trim()).map((line) => {
    const at = line.indexOf("=");
    if (at < 1) throw { detail: `\`environment\`: '${line}' must be NAME=value` };
    return [line.slice(0, at).trim(), written(line.slice(at + 1))];
  }));
}

/** A value of a form's field as the API has it; undefined: as it was. */
function changed(field) {
  const before = field.tagName === "SELECT" ? [...field.options].find((option) => option.defaultSelected)?.value : field.defaultValue;
  if (field.value === (before ?? "")) return undefined;
  switch (field.dataset.kind) {
    case "number": return field.value === "" ? null : Number(field.value);
    case "lines": return field.value.split("\n").map((line) => line.trim()).filter(Boolean);
    case "choice":
      if (field.value === "disabled" && field.dataset.empty) return "";
      return field.value === "" || field.value === "default" ? null : field.value;
    case "pairs": {
      const [now, then] = [pairs(field.value), pairs(field.defaultValue)];
      const names = new Set([...Object.keys(now), ...Object.keys(then)]);
      return Object.fromEntries([...names].filter((name) => now[name] !== then[name]).map((name) => [name, now[name] ?? null]));
    }
    default: return field.value;
  }
}

/** Shows what was wrong beside the field that it names, or below the form. */
function blame(form, problem) {
  const text = problem.detail ?? String(problem);
  const named = [...form.elements].filter((field) => field.name && text.includes("`" + field.name));
  named.sort((one, other) => other.name.length - one.name.length);
  const place = named[0]?.closest("label")?.querySelector(".wrong") ?? form.querySelector("[data-rest]");
  place.textContent = text;
  place.hidden = false;
  named[0]?.focus();
}

function forgive(form) {
  for (const place of form.querySelectorAll(".wrong")) place.hidden = true;
}

function settings(form) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    forgive(form);
    try {
      const patch = {};
      for (const field of form.elements) {
        if (!field.name) continue;
        const value = changed(field);
        if (value === undefined) continue;
        const path = field.name.split(".");
        let at = patch;
        for (const part of path.slice(0, -1)) at = at[part] ??= {};
        at[path.at(-1)] = value;
      }
      await ask("PATCH", form.dataset.settings, patch);
      location.reload();
    } catch (problem) {
      blame(form, problem);
    }
  });
}

function alias(form) {
  const { weight, shown } = form.elements;
  weight.addEventListener("input", () => { shown.value = `${weight.value} %`; });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    forgive(form);
    const { alias, version, other } = form.elements;
    const weights = other.value && Number(weight.value) > 0 ? { [other.value]: Number(weight.value) / 100 } : {};
    try {
      await ask("PUT", form.dataset.alias + encodeURIComponent(alias.value), { version: version.value, weights });
      tell(`${alias.value}: set`);
    } catch (problem) {
      blame(form, problem);
    }
  });
}

/** Sends a component, and says how far it is. */
function upload(form) {
  const { component, name } = form.elements;
  const [drop, progress, told] = [".drop", "progress", ".told"].map((selector) => form.querySelector(selector));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) {
        component.files = event.dataTransfer.files;
        if (name && !name.value) name.value = component.files[0].name.replace(/\.wasm$/, "").replaceAll(/[^A-Za-z0-9_.-]/g, "-");
      }
    });
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const request = new XMLHttpRequest();
    const path = encodeURIComponent(form.dataset.name ?? name.value);
    request.open("PUT", `/v1/functions/${path}/code`);
    request.setRequestHeader("Content-Type", "application/wasm");
    if (token) request.setRequestHeader("Dormouse-Csrf", token);
    progress.hidden = false;
    request.upload.onprogress = (sent) => { progress.value = (100 * sent.loaded) / sent.total; told.textContent = "Uploading"; };
    request.upload.onload = () => { progress.removeAttribute("value"); told.textContent = "Compiling"; };
    request.onerror = () => { progress.hidden = true; told.textContent = "The host cannot be reached."; };
    request.onload = () => {
      progress.hidden = true;
      told.classList.toggle("wrong", request.status >= 400);
      if (request.status >= 400) told.textContent = JSON.parse(request.responseText).detail;
      else location.href = `/console/functions/${path}`;
    };
    request.send(component.files[0]);
  });
}

/** Calls the function and shows all of its answer; the last events are kept in this browser. */
function invoke(form) {
  const { event: body, method, path, qualifier, recent } = form.elements;
  const store = `dormouse-events-${form.dataset.function}`;
  const kept = () => { try { return JSON.parse(localStorage.getItem(store)) ?? []; } catch { return []; } };
  const fill = () => {
    recent.replaceChildren(new Option("none", ""), ...kept().map((one, index) => new Option(`${one.method ?? ""} ${one.path ?? ""} ${one.event}`.trim().slice(0, 60) || "(empty)", index)));
  };
  fill();
  recent.addEventListener("change", () => {
    const one = kept()[recent.value];
    if (!one) return;
    body.value = one.event;
    if (method) [method.value, path.value] = [one.method, one.path];
  });
  const answer = form.nextElementSibling;
  const told = (name) => answer.querySelector(`[data-told="${name}"]`);
  form.addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    const one = { event: body.value, ...(method && { method: method.value, path: path.value }) };
    localStorage.setItem(store, JSON.stringify([one, ...kept().filter((other) => JSON.stringify(other) !== JSON.stringify(one))].slice(0, 10)));
    fill();
    answer.hidden = false;
    told("status").textContent = "…";
    try {
      const reply = await ask("POST", form.dataset.invoke, { ...one, ...(qualifier.value && { qualifier: qualifier.value }) });
      told("status").textContent = `${reply.status} ${reply.code}`;
      told("start").textContent = `start: ${reply.start}`;
      told("timing").textContent = reply.serverTiming;
      told("body").textContent = reply.body;
      told("lines").textContent = reply.lines.join("\n");
      told("log").href = `/console/logs?function=${encodeURIComponent(form.dataset.function)}&request=${encodeURIComponent(reply.request)}`;
    } catch (problem) {
      told("status").textContent = problem.detail ?? String(problem);
      for (const name of ["start", "timing", "body", "lines"]) told(name).textContent = "";
    }
  });
}

const LINES_MAX = 5000;

/** Follows a log, and goes back in it. */
async function log(place) {
  const { log: path, request } = place.dataset;
  const older = place.querySelector(".older");
  let next;
  const today = new Date().toISOString().slice(0, 10);
  const row = (line) => {
    const span = (kind, content) => Object.assign(document.createElement("span"), { className: kind, textContent: content });
    const row = document.createElement("p");
    row.dataset.sequence = line.sequence;
    const time = Object.assign(document.createElement("time"), { dateTime: line.time, title: line.time, textContent: line.time.startsWith(today) ? line.time.slice(11, 23) : line.time.slice(0, 19).replace("T", " ") });
    row.append(time, " ", span("who", `${line.stream} ${line.version}`), " ", span(line.stream, visible(line.text)), " ");
    if (line.request && !request) {
      const link = Object.assign(document.createElement("a"), { textContent: line.request.slice(-6), title: line.request });
      link.href = `/console/logs?function=${encodeURIComponent(line.function)}&request=${encodeURIComponent(line.request)}`;
      row.append(link);
    }
    return row;
  };
  const page = async (before) => {
    const answer = await ask("GET", before ? `${path}&before=${before}` : path);
    next = answer.next;
    older.hidden = !next;
    older.after(...answer.lines.map(row));
    return answer.lines;
  };
  older.addEventListener("click", () => page(next).catch((problem) => tell(problem.detail ?? String(problem))));
  let last = 0;
  try {
    last = (await page()).at(-1)?.sequence ?? 0;
  } catch (problem) {
    tell(problem.detail ?? String(problem));
    return;
  }
  place.scrollTop = place.scrollHeight;
  const follow = () => {
    const events = new EventSource(`${path}&follow=true&after=${last}`);
    events.onmessage = (event) => {
      const line = JSON.parse(event.data);
      last = line.sequence;
      const atEnd = place.scrollHeight - place.scrollTop - place.clientHeight < 40;
      place.append(row(line));
      if (place.childElementCount > LINES_MAX) {
        older.nextElementSibling.remove();
        next = older.nextElementSibling.dataset.sequence;
        older.hidden = false;
      }
      if (atEnd) place.scrollTop = place.scrollHeight;
    };
    // By itself it would begin again where it began.
    events.onerror = () => {
      events.close();
      setTimeout(follow, 2000);
    };
  };
  follow();
}

/** Text in which characters that would change how it is read are written out. */
function visible(text) {
  return text.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Draws what a bill says over time. */
function chart(place) {
  const series = JSON.parse(place.dataset.chart);
  const names = place.dataset.lines.split(",");
  const style = getComputedStyle(document.documentElement);
  const colours = ["--active", "--freezing", "--suspended"].map((name) => style.getPropertyValue(name).trim());
  const at = series.map((point) => Date.parse(point.at) / 1000);
  const data = [at, ...names.map((name) => series.map((point) => point[name]))];
  const shown = { cu: "CU", executed: "executed", active: "active", wall: "on the clock" };
  const axis = { stroke: style.getPropertyValue("--soft").trim(), grid: { stroke: style.getPropertyValue("--line").trim(), width: 1 } };
  const now = Date.now() / 1000;
  const range = [now - Number(place.dataset.days) * 86400, now];
  const size = () => ({ width: place.clientWidth || 300, height: 220 });
  const plot = new uPlot({
    ...size(),
    scales: { x: { range } },
    // By itself it rounds small figures to 0.
    axes: [axis, { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => String(Number(tick.toPrecision(3)))) }],
    series: [{}, ...names.map((name, index) => ({ label: shown[name], stroke: colours[index], width: 2, points: { show: series.length < 40 } }))],
  }, data, place);
  addEventListener("resize", () => plot.setSize(size()));
}

live();
for (const [selector, start] of [["[data-settings]", settings], ["form[data-alias]", alias], ["[data-upload]", upload], ["[data-key]", key], ["[data-invoke]", invoke], ["[data-log]", log], ["[data-chart]", chart]]) {
  for (const element of document.querySelectorAll(selector)) start(element);
}
