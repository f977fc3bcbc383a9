// SPDX-License-Identifier: Apache-2.0
import { render } from 'preact';
import { App } from './app.tsx';
import './style.css';

document.getElementById('not-started')!.remove();
render(<App />, document.getElementById('app')!);
