// The same answer as the function `hello`, from a worker.
export default {
  async fetch(request) {
    const reply = `Hello, ${await request.text()}!\n`;
    return new Response(reply, { headers: { "content-type": "application/octet-stream" } });
  },
};
