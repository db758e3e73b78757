"use strict";

const $ = id => document.getElementById(id);
const money = cents => (cents / 100).toFixed(2);
const products = ["tea", "coffee", "honey"];

// The session is this tab's alone: no cookie, nothing in a URL, and gone when the tab is closed.
// It has user (id, username and, where the shop knows it, display_name), token, expires_at and refresh_token.
let session = JSON.parse(sessionStorage.getItem("session") || "null");

function keep(s) {
  session = s;
  if (s) sessionStorage.setItem("session", JSON.stringify(s));
  else sessionStorage.removeItem("session");
  $("guest").hidden = Boolean(s);
  $("logout").hidden = !s;
  $("who").textContent = s ? `Logged in as ${s.user.display_name || s.user.username}` : "";
  $("order").querySelector("button").disabled = !s;
}

// send makes one request. What it throws has the status of the answer, or none without an answer.
async function send(method, path, body, headers = {}) {
  if (body) headers["Content-Type"] = "application/json";
  const resp = await fetch("/v1" + path, { method, headers, body: body && JSON.stringify(body), credentials: "omit", cache: "no-store" });
  const text = await resp.text();
  let data = {};
  try { data = text ? JSON.parse(text) : {}; } catch { /* not from a service of ours */ }
  if (resp.ok) return data;
  const fields = (data.errors || []).map(e => `${e.location}: ${e.message}`).join("; ");
  const wait = resp.headers.get("Retry-After");
  const parts = [data.detail || data.title || `status ${resp.status}`, fields, wait && `try again in ${wait} s`];
  throw Object.assign(new Error(parts.filter(Boolean).join(" – ")), { status: resp.status });
}

// renew gets a new token. A refresh token is good for one use, so all who need one wait for the same.
let renewal = null;
function renew() {
  renewal ??= (async () => {
    const s = session;
    try {
      const fresh = await send("POST", "/refresh", { refresh_token: s.refresh_token });
      if (session === s) keep({ ...s, ...fresh });
    } catch (err) {
      if (err.status >= 400 && err.status < 500 && err.status !== 429 && session === s) {
        keep(null);
        say("login-out", "Your session has ended. Log in again.", true);
      }
      throw err;
    } finally { renewal = null; }
  })();
  return renewal;
}

// api is send with the token, which it renews when its time is nearly over or it is refused.
async function api(method, path, body, headers = {}) {
  if (new Date(session.expires_at) - Date.now() < 30_000) await renew();
  const authorized = () => ({ ...headers, Authorization: "Bearer " + session.token });
  try {
    return await send(method, path, body, authorized());
  } catch (err) {
    if (err.status !== 401) throw err;
    await renew();
    return send(method, path, body, authorized());
  }
}

function say(id, text, bad) { $(id).textContent = text; $(id).className = bad ? "out bad" : "out"; }

function row(cells) {
  const tr = document.createElement("tr");
  for (const [text, cls] of cells) {
    const td = document.createElement("td");
    td.textContent = text;
    if (cls) td.className = cls;
    tr.append(td);
  }
  return tr;
}

function only(text, columns) {
  const tr = row([[text]]);
  tr.firstChild.colSpan = columns;
  return tr;
}

async function showStock() {
  const chosen = $("order").sku.value;
  const options = await Promise.all(products.map(async sku => {
    const o = document.createElement("option");
    o.value = sku;
    try { o.textContent = `${sku} (${(await send("GET", "/stock/" + sku)).available} in stock)`; }
    catch { o.textContent = sku; }
    return o;
  }));
  $("order").sku.replaceChildren(...options);
  if (chosen) $("order").sku.value = chosen;
}

async function showMine() {
  if (!session) {
    $("orders").replaceChildren(only("Log in to see your orders.", 4));
    $("mails").replaceChildren(only("Log in to see your mail.", 2));
    return;
  }
  const id = session.user.id;
  const { orders } = await api("GET", "/orders/" + id);
  if (session?.user.id !== id) return;
  $("orders").replaceChildren(...(orders.length ? orders.map(o => row([
    ["#" + o.id], [o.items.map(i => `${i.quantity} × ${i.sku}`).join(", ")], [money(o.total_cents), "n"],
    [o.status + (o.reason ? ": " + o.reason : ""), o.status]])) : [only("Nothing ordered yet.", 4)]));
  const { mails } = await api("GET", "/mails/" + id);
  if (session?.user.id !== id) return;
  $("mails").replaceChildren(...(mails.length
    ? mails.map(m => row([[m.subject], [new Date(m.sent_at).toLocaleTimeString()]])) : [only("No mail.", 2)]));
}

async function logIn(username, password) {
  const { user_id, ...tokens } = await send("POST", "/login", { username, password });
  keep({ user: { id: user_id, username }, ...tokens });
  for (const form of [$("login"), $("signup")]) form.reset();
  for (const out of ["login-out", "signup-out", "order-out"]) say(out, "");
  const { display_name } = await api("GET", "/users/" + user_id);
  if (session?.user.id === user_id) keep({ ...session, user: { ...session.user, display_name } });
  await showMine();
}

// on has a form do its work once at a time, and say below the form what went wrong.
function on(form, work) {
  $(form).addEventListener("submit", async e => {
    e.preventDefault();
    const button = e.target.querySelector("button");
    button.disabled = true;
    try { await work(Object.fromEntries(new FormData(e.target))); } catch (err) { say(form + "-out", err.message, true); }
    button.disabled = form === "order" && !session;
  });
}

on("login", f => logIn(f.username, f.password));

on("signup", async f => {
  const user = await send("POST", "/users", f);
  await logIn(user.username, f.password);
});

on("order", async f => {
  const order = { user_id: session.user.id, items: [{ sku: f.sku, quantity: Number(f.quantity) }] };
  const o = await api("POST", "/orders", order, { "Idempotency-Key": crypto.randomUUID() });
  say("order-out", `Order #${o.id} is ${o.status}.`);
  await showMine();
});

$("logout").addEventListener("click", async () => {
  const { refresh_token } = session;
  keep(null);
  await showMine();
  try { await send("POST", "/logout", { refresh_token }); } catch (err) { say("login-out", "Logged out here only: " + err.message, true); }
});

keep(session);
async function refresh() {
  try { await Promise.all([showStock(), showMine()]); } catch { /* the next round tries again */ }
  setTimeout(refresh, 1500);
}
refresh();
