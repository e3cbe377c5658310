// What is asked of the server, with the token where there is one.

let token = "";

// The token from the page's address, where it is not left, to be copied by mistake; or the one of before a reload.
export function knowToken() {
  token = location.hash.slice(1);
  keepToken();
  history.replaceState(null, "", location.pathname);
}

// An answer; where there is none, an Error with a sentence for the user, or an AbortError.
export async function ask(path, options = {}) {
  const headers = { "X-Inpaint-Fast": "1", ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, { ...options, headers }).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("The server does not answer. Is it still running?");
  });
  if (response.ok) return response;
  if (response.status === 401 && (await askForToken())) return ask(path, options);
  const { error } = await response.json().catch(() => ({}));
  throw new Error(error ?? `The server answered with ${response.status}.`);
}

async function askForToken() {
  const dialog = document.getElementById("asked");
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "given") return false;
  token = document.getElementById("token").value.trim();
  keepToken();
  return true;
}

function keepToken() {
  try {
    if (token) sessionStorage.setItem("token", token);
    else token = sessionStorage.getItem("token") ?? "";
  } catch {
    // a browser that keeps nothing asks again
  }
}
