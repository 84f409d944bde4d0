// How numbers are shown. What is not known is a dash.

export const NONE = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

function known(value) {
  return value !== null && value !== undefined && Number.isFinite(value);
}

export function count(value) {
  return known(value) ? whole.format(value) : NONE;
}

export function amount(value) {
  if (!known(value)) return NONE;
  return Math.abs(value) >= 100 ? whole.format(value) : short.format(value);
}

export function share(value) {
  return known(value) ? `${(value * 100).toFixed(1)} %` : NONE;
}

export function recall(value) {
  return known(value) ? value.toFixed(4) : NONE;
}

export function bytes(value) {
  if (!known(value)) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${short.format(value)} ${units[unit]}`;
}

export function microseconds(value) {
  if (!known(value)) return NONE;
  if (value < 1000) return `${short.format(value)} µs`;
  if (value < 1e6) return `${short.format(value / 1000)} ms`;
  return `${short.format(value / 1e6)} s`;
}

export function duration(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds < 120) return `${short.format(seconds)} s`;
  if (seconds < 7200) return `${short.format(seconds / 60)} min`;
  if (seconds < 172800) return `${short.format(seconds / 3600)} h`;
  return `${short.format(seconds / 86400)} d`;
}

// A time to live: 0 is for ever.
export function lifetime(seconds) {
  return seconds === 0 ? "for ever" : duration(seconds);
}

export function clock(unix) {
  return known(unix) ? new Date(unix * 1000).toLocaleTimeString("en-GB") : NONE;
}

export function moment(unix) {
  return known(unix) ? new Date(unix * 1000).toISOString().slice(0, 19).replace("T", " ") : NONE;
}
