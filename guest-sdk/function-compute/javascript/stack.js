// Stacks in terms of the user's files: the module that runs was made of them.

/** The lines of an error's stack, from the throw outwards, that are in the user's files. */
export function stackOf(error) {
  const all = String(error.stack ?? "").split("\n").map((line) => line.trim());
  return all.map(located).filter((line) => line !== undefined);
}

function located(line) {
  const found = /^(.*?)\(?[^\s()]*app\.js:(\d+):(\d+)\)?$/.exec(line);
  if (found === null) return undefined;
  const { files, at } = globalThis.dormouseLines ?? { files: [], at: [] };
  const [row, column] = [Number(found[2]), Number(found[3]) - 1];
  let [low, high] = [0, at.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    const isBefore = at[middle][0] < row || (at[middle][0] === row && at[middle][1] <= column);
    if (isBefore) low = middle + 1;
    else high = middle;
  }
  const [, , file, own] = at[low - 1] ?? [0, 0, -1];
  return file === -1 ? undefined : `${found[1]}(${files[file]}:${own})`;
}
