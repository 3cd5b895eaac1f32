// A counter as a user of Function Compute writes it. The handler adds two and the hook before each freeze adds one, so that
// two calls one after the other show whether the hook ran between them: 2 and 5, or 2 and 4.

'use strict';

let count = 0;

exports.initializer = (context, callback) => {
  console.log('initializer of %s', context.function.name);
  callback(null, '');
};

exports.handler = (event, context, callback) => {
  if (event.toString() === 'fail') return callback(new Error('told to fail'));
  count += 2;
  console.log('count is %d', count);
  callback(null, String(count));
};

exports.preFreeze = (context, callback) => {
  count += 1;
  console.log('preFreeze adds one');
  callback(null, '');
};

exports.preStop = (context, callback) => {
  console.log('preStop at %d', count);
  callback(null, '');
};
