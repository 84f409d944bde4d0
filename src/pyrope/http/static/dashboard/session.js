// Who looks: kept in this tab until it is closed, and sent with each request.

const PLACE = "pyrope";

export function keep(login, key) {
  sessionStorage.setItem(PLACE, JSON.stringify({ login, key }));
}

export function forget() {
  sessionStorage.removeItem(PLACE);
}

export function isKept() {
  return sessionStorage.getItem(PLACE) !== null;
}

function headers() {
  if (!isKept()) return {};
  const { login, key } = JSON.parse(sessionStorage.getItem(PLACE));
  const bytes = new TextEncoder().encode(`${login}:${key}`);
  return { Authorization: `Basic ${btoa(String.fromCharCode(...bytes))}` };
}

// fetch, signed in. "omit": the browser is not to ask for a password by itself.
export function ask(path, options = {}) {
  return fetch(path, {
    ...options,
    headers: { ...headers(), ...options.headers },
    credentials: "omit",
    cache: "no-store",
  });
}

// What a problem says (RFC 9457), and when to come back, in milliseconds.
export async function refusalOf(answer) {
  let told = {};
  try {
    told = await answer.json();
  } catch { /* no JSON: the status has to do */ }
  return {
    status: answer.status,
    code: told.code || "ERR",
    detail: told.detail || `${answer.status} ${answer.statusText}`,
    waitMs: 1000 * Number(answer.headers.get("Retry-After") || 0),
  };
}
