// An HTTP component as those who know service workers write it: it exports nothing and listens for requests. What
// componentize-js makes of it answers one request in its life.

addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

let requests = 0;

async function answer(request) {
  requests += 1;
  const body = await request.text();
  return new Response(JSON.stringify({ method: request.method, path: new URL(request.url).pathname, body, requests }));
}
